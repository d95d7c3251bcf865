"""Quality for cost, and curves where a sweep mixes samplers."""

import json

import numpy as np
import pytest
from PIL import Image

from cfg_jax.papers.cfg import findings
from cfg_jax.report import cells, charts, cost, figures
from cfg_jax.report.curves import curves
from tests.report.reports import STUDY, report_on, write_run

BEST = {'name': 'dpmpp', 'grid': 'edm', 'order': 2, 'singlestep': False, 'rho': 7.0}


@pytest.fixture
def main_job(tmp_path):
  """Three models by the best sampler, one of them by Algorithm 2 too."""
  for p in (0.1, 0.2, 0.5):
    write_run(tmp_path, f'p_uncond={p}', p, n=20, sampler=BEST, num_steps=8, error=0.02)
  write_run(tmp_path, 'p_uncond=0.1', 0.1, n=20, num_steps=12, error=0.02)
  return tmp_path


def panels_of(workdir, distance='FD-digits'):
  results = cells.read(workdir, STUDY.axis)
  return cost.panels(results, STUDY.axis, results.cells, distance)


def test_calls_are_those_of_the_solver_and_of_guidance(tmp_path):
  heun = {'name': 'heun', 'grid': 'edm', 'rho': 7.0}
  for sampler, steps in ((BEST, (6, 8)), (heun, (6,)), ({'name': 'new', 'grid': 'edm'}, (6,))):
    for num_steps in steps:
      write_run(
        tmp_path, 'run', 0.1, ws=(0.0, 1.0), n=20, sampler=sampler, num_steps=num_steps, error=0.1
      )
  unguided, guided = panels_of(tmp_path)
  calls = {line.name: line.values[cost.CALLS].tolist() for line in unguided.lines}
  assert calls['dpmpp on edm grid'] == [6, 8] and calls['heun on edm grid'] == [11]
  assert np.isnan(calls['new on edm grid']).all()
  assert [line.values[cost.CALLS].tolist() for line in guided.lines][:2] == [[12, 16], [22]]
  fd = 12 + 4 * 0.1 + 30 * 0.25 / 2  # at w = 1
  assert guided.lines[0].values['FD-digits'].tolist() == [fd, fd]
  np.testing.assert_allclose(guided.lines[0].errors['FD-digits'], 0.1 * fd)


def test_of_many_lines_a_solver_is_a_colour_and_a_grid_a_shape(tmp_path):
  for solver in ('ddpm', 'ddim', 'heun'):
    for grid in ('paper', 'uniform', 'edm'):
      sampler = {'name': solver, 'grid': grid}
      write_run(tmp_path, 'run', 0.1, ws=(1.0,), n=20, sampler=sampler, num_steps=6, error=0.1)
  [panel] = panels_of(tmp_path)
  looks = {tuple(line.name.split(' on ')): charts.look_of(line) for line in panel.lines}
  assert len(looks) == 9
  for part, look in enumerate(('color', 'marker')):
    found = {(names[part], of_line[look]) for names, of_line in looks.items()}
    assert len(found) == len({x for _, x in found}) == 3


def test_the_page_has_a_panel_for_each_w_and_shows_that_of_the_least_distance(main_job):
  page = report_on(main_job)
  parts = [attrs for attrs in page.all('div') if attrs.get('class') == 'cost']
  assert ['hidden' in part for part in parts] == [w != 0.5 for w in (0, 0.1, 0.3, 0.5, 1, 2, 4)]
  chosen = [o for o in page.all('option') if 'selected' in o]
  assert len(chosen) == 1 and 'Quality for cost' in page.text
  tips = [g['data-tip'] for g in page.all('g') if 'network calls' in g.get('data-tip', '')]
  name = 'p_uncond = 0.1, ddpm on paper grid'
  assert any(t.startswith(f'{name}: num_steps = 12, network calls an image 24, FD') for t in tips)


def test_no_panel_where_there_is_one_sampler(tmp_path):
  write_run(tmp_path, 'run', 0.1, n=20)
  assert 'Quality for cost' not in report_on(tmp_path).text


def test_findings_and_curves_name_the_sampler_and_compare_equal_ones(main_job):
  found = curves(cells.read(main_job, STUDY.axis), STUDY.axis)
  assert [c.name for c in found] == [
    'p_uncond = 0.1, dpmpp on edm grid, 8 steps',
    'p_uncond = 0.1, ddpm on paper grid, 12 steps',
    'p_uncond = 0.2, dpmpp on edm grid, 8 steps',
    'p_uncond = 0.5, dpmpp on edm grid, 8 steps',
  ]
  least, _, frontier = findings.findings(found)
  assert len(least.lines) == 4 and len(frontier.lines) == 2
  assert all(line.count('dpmpp on edm grid') == 2 for line in frontier.lines)
  page = report_on(main_job)
  assert '2 samplers, named with the curves' in page.text
  assert [h for h in page.data['same'] if h[0] == 'rho'] == []
  heads = page.text[page.text.index('All numbers') :]
  assert 'singlestep' not in heads.split('0.1')[0]  # of one sampler alone, and always the same


def test_seconds_are_shown_where_they_were_recorded(main_job):
  for folder in main_job.glob('p_uncond=0.1/samples/*/w=0.5'):
    (folder / 'speed.json').write_text(json.dumps({'seconds_per_image': 0.25, 'images': 10}))
  panel = panels_of(main_job)[3]
  assert panel.x == 0.5
  seconds = {line.name: line.values.get(cost.SECONDS) for line in panel.lines}
  assert seconds['p_uncond = 0.1, ddpm on paper grid'].tolist() == [0.25]
  assert 'FD-digits over seconds an image' in report_on(main_job).text


def test_of_many_curves_the_best_are_on(tmp_path):
  for num_steps in range(5, 15):
    metrics = {'FD-digits': 100.0 - num_steps, 'IS': 9.0}
    for w in (0.0, 1.0):
      write_run(tmp_path, 'run', 0.1, ws=(w,), n=20, num_steps=num_steps, metrics=metrics)
  page = report_on(tmp_path)
  boxes = [i for i in page.all('input') if 'data-toggle' in i][:10]
  assert ['checked' in box for box in boxes] == [False] * 2 + [True] * 8
  assert '2 curves are off at first' in page.text


def test_write_cost_draws_a_row_for_each_w_and_a_curve_for_each_sampler(main_job, tmp_path):
  figures.write_cost(main_job, tmp_path / 'cost.png', STUDY)
  with Image.open(tmp_path / 'cost.png') as picture:
    colours = {colour for _, colour in picture.convert('RGB').getcolors(2**24)}
    assert picture.height >= 2 * picture.width  # seven rows
  assert all(tuple(bytes.fromhex(charts.LIGHT[f's{j}'][1:])) in colours for j in range(4))
