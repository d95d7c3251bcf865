"""A sweep that version 1 began is finished by today's code, with the numbers of version 1.

tests/golden/version1: `half` has one of two models finished, `whole.csv` is the report of both.
"""

import csv
import json
import shutil

import pytest

from cfg_jax.sweep import grid
from tests.conftest import ROOT, run
from tests.recorded import FILE, machine
from tests.sweep.test_sweep import submissions

VERSION1 = ROOT / 'tests' / 'golden' / 'version1'
METRICS = ('FD-digits', 'IS', 'IS_std', 'KID', 'KID_std', 'accuracy')
METRICS += ('coverage', 'density', 'precision', 'recall')


def test_its_record_is_read_in_todays_fields():
  config, [axes] = grid.read(VERSION1 / 'half')
  assert axes == {'method.p_uncond': [0.1]}
  [model] = grid.runs_of(config, axes)
  assert model.name == 'p_uncond=0.1' and model.config.method.p_uncond == 0.1
  assert model.samplings[0].config.sample.guidance.w == (0.0, 1.0)
  assert model.samplings[0].config.sample.sampler.num_steps == 4


@pytest.mark.slow
def test_it_ends_with_the_same_numbers(tmp_path, data_dir):
  workdir = tmp_path / 'sweep'
  shutil.copytree(VERSION1 / 'half', workdir)
  first = workdir / 'p_uncond=0.1'

  def shards():
    return {p.read_bytes() for p in first.glob('samples/**/*.npz')}

  before = shards()
  argv = ('--workdir', str(workdir), '--set', f'data.dir={data_dir}')
  done = run('cfg_jax.sweep', *argv, '--grid=method.p_uncond=0.1,0.5', JAX_NUM_CPU_DEVICES='1')
  assert done.returncode == 0, done.stderr
  assert submissions(workdir) == {'p_uncond=0.5/all': 1}  # the finished model is left as it was
  assert shards() == before and len(before) == 2

  with (VERSION1 / 'whole.csv').open(newline='') as file:
    expected = {
      (r['run'], float(r['w'])): [float(r[m]) for m in METRICS] for r in csv.DictReader(file)
    }
  found = {}
  for p_uncond in ('0.1', '0.5'):
    text = (workdir / f'p_uncond={p_uncond}' / 'evals.jsonl').read_text()
    for line in map(json.loads, text.splitlines()):
      w = line['settings']['sample']['guidance']['w']
      found[line['run'], w] = [line['metrics'][m] for m in METRICS]
  assert found.keys() == expected.keys()
  same_machine = machine() == json.loads(FILE.read_text())['machine']
  for cell, values in expected.items():
    assert found[cell] == (values if same_machine else pytest.approx(values, rel=1e-3)), cell
  with (workdir / 'report.csv').open(newline='') as file:
    rows = [(r['run'], float(r['w']), [float(r[m]) for m in METRICS]) for r in csv.DictReader(file)]
  assert rows == [(*cell, values) for cell, values in found.items()]
