"""Lines → cells: short names, the order of columns, metrics as their table has them."""

import json
import math
import shutil

import numpy as np
import pytest

from cfg_jax.core.errors import UserError
from cfg_jax.evaluate import metrics
from cfg_jax.generate import store
from cfg_jax.report import cells
from cfg_jax.report.told import told
from tests.conftest import ROOT
from tests.report.reports import STUDY, write_run


def read(workdir):
  return cells.read(workdir, STUDY.axis)


def test_a_cell_is_flat_and_has_the_fields_of_the_config(tmp_path):
  write_run(tmp_path, 'run', 0.2, ws=(0.3,))
  [cell] = read(tmp_path).cells
  assert cell['method.p_uncond'] == 0.2 and cell['sample.guidance.w'] == 0.3
  assert cell['sample.sampler.num_steps'] == 32 and cell['sample.seed'] == cell['seed'] == 0
  assert cell['run'] == 'run' and cell['step'] == 1500 and cell['metrics']['IS_std'] == 0.01
  nested = {k for k, v in cell.items() if isinstance(v, dict)}
  assert nested == {'metrics', 'errors', 'deviations'}
  np.testing.assert_allclose(cell['errors']['IS'], 0.01 / 3)  # by its ten parts, in old lines


def test_short_names_are_as_long_as_they_must_be(tmp_path):
  write_run(tmp_path, 'run', 0.2, ws=(0.3,))
  fields = read(tmp_path).fields
  assert fields['sample.guidance.w'] == 'w' and fields['method.p_uncond'] == 'p_uncond'
  assert (fields['seed'], fields['sample.seed']) == ('seed', 'sample.seed')
  assert (fields['method.name'], fields['sample.sampler.name']) == ('method', 'sampler')
  assert len({*fields.values()}) == len(fields)


def test_numbers_sort_as_numbers(tmp_path):
  for p in (0.5, 0.1, 0.25):
    write_run(tmp_path, f'p_uncond={p}', p, num_steps=128, ws=(2.0, 0.0, 10.0))
    write_run(tmp_path, f'p_uncond={p}', p, num_steps=32, ws=(2.0, 0.0, 10.0))
  keys = ('method.p_uncond', 'sample.sampler.num_steps', 'sample.guidance.w')
  found = [tuple(c[k] for k in keys) for c in read(tmp_path).cells]
  assert found == sorted(found) and len(found) == 18


def test_lines_of_other_methods_and_samplers_stand_beside(tmp_path):
  write_run(tmp_path, 'a', 0.2, ws=(0.0,))
  write_run(tmp_path, 'b', 0.2, ws=(0.0,))
  path = tmp_path / 'b/evals.jsonl'
  line = json.loads(path.read_text())
  line['settings']['sample']['sampler'] = {'name': 'ddim', 'eta': 0.5}
  line['settings']['method'] = {'name': 'other'}
  path.write_text(json.dumps(line) + '\n')
  found = read(tmp_path)
  assert list(found.fields.values())[2:6] == ['p_uncond', 'eta', 'num_steps', 'v']
  assert [c.get('sample.sampler.eta') for c in found.cells] == [None, 0.5]


def test_metrics_are_known_by_the_table_and_the_line(tmp_path):
  values = {'sFD-x': 1.0, 'novel': 5.0, 'KID_std': 0.1, 'KID': 2.0, 'IS': 3.0, 'FD-x': 4.0}
  write_run(
    tmp_path, 'run', 0.2, ws=(0.0,), metrics=values, distance='FD-x', extra={'extractor': 'x'}
  )
  write_run(tmp_path, 'odd', 0.2, ws=(0.0,), metrics={'how far': 1.0}, distance='how far')
  found = read(tmp_path)
  assert list(found.metrics) == ['FD-x', 'how far', 'IS', 'KID', 'KID_std', 'sFD-x', 'novel']
  assert found.told == ['FD-x', 'how far', 'IS', 'KID', 'sFD-x', 'novel']
  better = {k: m and m.better for k, m in found.metrics.items()}
  assert better['FD-x'] == better['how far'] == better['sFD-x'] == 'lower'
  assert better['IS'] == 'higher' and better['novel'] is None
  assert found.text(found.cells[1], 'KID') == '2'


def test_errors_are_told_to_the_digits_that_they_leave(tmp_path):
  errors = {'errors': {'FD-digits': 0.812, 'IS': 0.0123}, 'deviations': {'IS': [0.1, 'x']}}
  write_run(tmp_path, 'run', 0.2, ws=(0.5,), extra=errors)
  found = read(tmp_path)
  [cell] = found.cells
  assert found.text(cell, 'FD-digits') == '12.80 ± 0.81' and cell['deviations'] == {}
  assert found.text(cell, 'IS') == '9.742 ± 0.012' and found.text(cell, 'accuracy') == '0.9697'
  assert [told(*x) for x in ((393.4, 36.6), (1e-5, 2e-8), (0.99, 0.0), (5.0, math.nan))] == [
    *('393 ± 37', '1e-05 ± 2e-08', '0.99 ± 0', '5')
  ]


def test_curves_are_named_by_what_tells_them_apart_and_samplers_in_words(tmp_path):
  best = {'name': 'dpmpp', 'grid': 'edm', 'order': 2, 'rho': 7.0}
  for p in (0.1, 0.2):
    write_run(tmp_path, f'p_uncond={p}', p, ws=(0.0,), sampler=best, num_steps=8)
  write_run(tmp_path, 'p_uncond=0.1', 0.1, ws=(0.0,), num_steps=12)
  settings = read(tmp_path).cells
  fields = {k: v for k, v in read(tmp_path).fields.items() if k not in (STUDY.axis, 'samples')}
  assert cells.names(settings, fields) == [
    'p_uncond = 0.1, dpmpp on edm grid, 8 steps',
    'p_uncond = 0.1, ddpm on paper grid, 12 steps',
    'p_uncond = 0.2, dpmpp on edm grid, 8 steps',
  ]
  order = [dict(s) for s in settings[:2]] + [settings[0] | {'sample.sampler.order': 1}]
  assert [x.split(', ')[-1] for x in cells.names(order, fields)] == [
    'order = 2',
    '12 steps',
    'order = 1',
  ]


def test_every_name_is_of_one_metric():
  names = [n for m in metrics.METRICS for n in (m.name, *m.aliases, m.spread) if n]
  assert len(set(names)) == len(names) and {m.better for m in metrics.METRICS} == {
    'lower',
    'higher',
  }
  assert metrics.by_name('digits')['FD-digits'] is metrics.METRICS[0]


@pytest.mark.parametrize('text', ['', '{"version": 2}\n'])
def test_no_cell_at_all_is_an_error(tmp_path, text):
  (tmp_path / 'evals.jsonl').write_text(text)
  with pytest.raises(UserError, match='holds no run: no evaluated cell'):
    read(tmp_path)


def test_a_run_of_version_1_becomes_one_of_today_and_is_read(tmp_path):
  old = ROOT / 'tests/golden/version1/half/p_uncond=0.1'
  shutil.copytree(old, tmp_path / old.name)
  lines = [json.loads(line) for line in (old / 'evals.jsonl').read_text().splitlines()]
  found = read(tmp_path)
  ours = {c['sample.guidance.w']: c for c in found.cells}
  assert len(lines) == len(ours) > 0
  for line in lines:
    cell = ours[line['w']]
    assert cell['metrics'] == line['metrics'] and cell['method.p_uncond'] == line['p_uncond']
    assert cell['sample.sampler.num_steps'] == line['T'] and cell['distance'] == 'FD-digits'
    assert len(store.index(tmp_path / old.name / cell['samples'])[0]) == line['n']
