"""The paper's numbers, as data and beside ours: curves, figures, the page of the report."""

import csv
import json
import re
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from cfg_jax.core import config as config_lib
from cfg_jax.evaluate.extractors import weights
from cfg_jax.papers.cfg import PAPER
from cfg_jax.papers.cfg import tables as paper
from cfg_jax.report import cells, charts, figures, panels
from cfg_jax.report.curves import curves
from tests.conftest import load_config
from tests.report.reports import STUDY, report_on, write_run


def test_paper_tables():
  first = paper.curves('imagenet64')[0]
  assert (first.table.name, first.table.field) == ('Table 1', 'method.p_uncond')
  assert first.value == 0.1
  assert (first.w[1], first.fid[1], first.inception_score[-1]) == (0.1, 1.55, 260.2)
  assert [c.value for c in paper.curves('imagenet128')] == [128, 256, 1024]
  assert paper.curves('digits') == ()
  assert paper.baselines('imagenet64') == (('CDM', 1.48, 67.95),)
  assert [b.model for b in paper.baselines('imagenet128')] == [
    *('BigGAN-deep, max IS', 'BigGAN-deep', 'CDM', 'LOGAN')
  ]
  assert paper.baselines('digits') == ()


# A line of evals.jsonl as `evaluate` writes it of 50 000 samples with the public weights.
INCEPTION = {
  'n': 50_000,
  'extractor': 'inception-2015-12-05',
  'extractor_sha256': weights.SHA256,
  'resize': 'tf1',
  'quantisation': 'round',
  'reference': 'imagenet64-train',
  'reference_n': 1_281_167,
}
PAPERS = {'dataset': 'imagenet64', 'distance': 'FID-50k', 'extra': INCEPTION}


def test_ours_beside_the_paper(tmp_path):
  write_run(tmp_path, 'run', 0.2, ws=(0.1, 0.15, 4.0), **PAPERS)
  found = cells.read(tmp_path, STUDY.axis)
  (ours,) = curves(found, STUDY.axis)
  (table,) = panels.beside([ours], STUDY.beside('imagenet64', 'FID-50k'), found.fields)
  (w, first), (_, last) = table['rows']  # the paper has no 0.15
  fid, score = ours.values('FID-50k')[0], ours.values('IS')[2]
  np.testing.assert_allclose([w, *first[:3]], [0.1, fid, 1.62, fid - 1.62])
  np.testing.assert_allclose(last[3:], [score, 248.97, score - 248.97])
  shown = report_on(tmp_path)
  assert shown.text.count('paper, p_uncond = ') >= 3 and 'Beside the paper’s Table 1' in shown.text
  drawn = [a for a in shown.all('path') if a.get('class') == 'line dashed' and len(a['d']) > 50]
  assert len(drawn) == 3 * 3
  # Another model is a point of the frontier, and of that chart only.
  [point] = [g for g in shown.all('g') if 'CDM' in g.get('data-tip', '')]
  assert point['data-tip'] == 'CDM: FID-50k 1.48, IS 67.95'


def test_figures_4_and_5_hold_ours_and_the_papers(tmp_path):
  for p in (0.1, 0.5):
    write_run(tmp_path, f'p={p}', p, dataset='imagenet64', distance='FID-50k')
  found = curves(cells.read(tmp_path, STUDY.axis), STUDY.axis)
  lines = charts.lines_of(found, STUDY.beside('imagenet64', 'FID-50k'), 'w')
  lines = {line.name: line for line in lines}
  assert [*lines] == [c.name for c in found] + [
    *(f'paper, p_uncond = {p}' for p in (0.1, 0.2, 0.5)),
    'CDM',
    'ADM, conditional, 250 steps',
    'ADM, conditional, 250 steps, dropout 0.1',
  ]
  assert lines['paper, p_uncond = 0.5'].style == 1  # that of ours with its setting
  assert lines['paper, p_uncond = 0.2'].style is None
  figures.write_frontier(tmp_path, tmp_path / 'figure4.png', STUDY)
  assert min(Image.open(tmp_path / 'figure4.png').size) > 300


def test_the_papers_value_of_the_same_cell_is_beside_ours(tmp_path):
  """Every row of Table 1 and Table 2, read from the page as a reader does."""
  for dataset, v, setting, cell in (
    ('imagenet64', 0.3, {}, 'fid_p0.2'),
    ('imagenet128', 0.2, {'num_steps': 256}, 'fid_T256'),
  ):
    file = resources.files('cfg_jax.papers.cfg') / paper.TABLES[dataset].file
    table = list(csv.DictReader(file.read_text().splitlines()))
    ws, workdir = [float(row['w']) for row in table], tmp_path / dataset
    extra = INCEPTION | {'reference': f'{dataset}-train'}
    changes = {'dataset': dataset, 'extra': extra, 'v': v} | setting
    write_run(workdir, 'run', 0.2, ws=ws, **PAPERS | changes)
    ours = [json.loads(line)['metrics'] for line in (workdir / 'run/evals.jsonl').open()]
    html = report_on(workdir).html
    section = html[html.index('id="paper"') : html.index('</section>', html.index('id="paper"'))]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', section)
    assert len(rows) == len(table) == 14
    for (w, values), m, row in zip(rows, ours, table):
      fid, fid_paper, _, score, is_paper, _ = re.findall('<td>(.*?)</td>', values)
      assert float(w) == float(row['w'])
      assert (float(fid_paper), float(is_paper)) == (
        float(row[cell]),
        float(row[cell.replace('fid', 'is')]),
      )
      assert (fid, score) == (f'{m["FID-50k"]:.2f}', f'{m["IS"]:.2f}')


@pytest.mark.parametrize(
  'other',
  [
    {'distance': 'FID', 'extra': INCEPTION | {'n': 10_000}},
    {
      'distance': 'FD-inception-unknown',
      'extra': INCEPTION | {'extractor': 'inception-unknown', 'extractor_sha256': 'ef' * 32},
    },
    {'distance': 'FD-digits'},
    {'v': 0.2},
    {'extra': INCEPTION | {'resize': 'half_pixel'}},
    {'dataset': 'cifar10'},
    {'ws': (0.15, 0.25)},
    {'p_uncond': 0.3},
  ],
  ids=str,
)
def test_other_settings_are_not_put_beside_the_paper(tmp_path, other):
  write_run(tmp_path, 'run', **{'p_uncond': 0.1} | PAPERS | other)
  shown = report_on(tmp_path)
  assert 'Beside the paper' not in shown.text
  drawn = other.keys() & {'distance', 'dataset'} == set()  # its whole curve, for comparison
  assert ('paper, p_uncond' in shown.text) == drawn


def test_the_papers_sweeps_are_fields_of_our_configs():
  for sweep in PAPER.sweeps.values():
    config = load_config(sweep.config)
    for axis in sweep.grid:
      field, _, values = axis.partition('=')
      for value in values.split(','):
        changed = config_lib.change(config, [f'{field}={value}']).to_dict()
        assert config_lib.flat(changed)[field] in (float(value), (float(value),))
  w = PAPER.sweeps['figure4'].grid[1].partition('=')[2].split(',')
  assert len(w) == 41 and (w[0], w[1], w[-1]) == ('0', '0.1', '4')
