"""The page of classifier-free and classifier guidance, at a size of seconds."""

import numpy as np
import pytest

from cfg_jax.core import steps
from cfg_jax.sweep import grid
from experiments import guidance_frontiers as frontiers
from tests.conftest import TINY, load_config, run
from tests.methods.test_classifier import TINY as TINY_CLASSIFIER


def sets(values):
  return [f'--set={k}={v}' for k, v in values.items() if not isinstance(v, tuple)]


@pytest.mark.slow
def test_the_page_at_a_tiny_size(data_dir, tmp_path):
  guide, workdir = tmp_path / 'guide', tmp_path / 'frontiers'
  data = {'data.dir': data_dir}
  train = ['cfg_jax.train', '--config', 'configs/classifier_digits.py', '--workdir', str(guide)]
  assert run(*train, *sets(TINY_CLASSIFIER | data | {'train.checkpoint_every': 6})).returncode == 0
  command = ['experiments.guidance_frontiers', '--workdir', str(workdir), '--guide', str(guide)]
  done = run(*command, *sets(TINY | data))
  assert done.returncode == 0, done.stderr
  ways = frontiers.read(workdir, str(guide))
  assert [way.name for way in ways] == list(frontiers.NAMES.values())
  for way in ways:
    assert len(way.curve.members) == 3
    assert way.gflop > 0 and way.seconds > 0
    for accuracy in (frontiers.BY_GUIDE, 'accuracy'):
      values = way.curve.values(accuracy)
      assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()
  assert ways[1].gflop < ways[0].gflop  # half a network's gradient, not a whole call
  assert (workdir / 'guidance_frontiers.png').stat().st_size > 20_000
  said = (workdir / 'guidance_frontiers.txt').read_text()
  assert said in done.stdout
  for way in ways:
    assert f'{way.name}: least FD-digits' in said


def test_the_three_ways_have_one_network_one_sampler_and_the_same_noises(monkeypatch):
  monkeypatch.setattr(frontiers.guides, 'problems', lambda config: ())  # no guide is there
  monkeypatch.setattr(steps, 'newest', lambda folder: 1)
  monkeypatch.setattr(steps, 'ema_digest', lambda folder, step: 'abc')
  config = load_config('digits')
  runs = grid.runs_of(config, *(grid.parse(a, config) for a in frontiers.grids('g')))
  assert [r.config.method.p_uncond for r in runs] == [0.1, 0, 1]
  for a in runs:
    assert a.config.model == runs[0].config.model and a.config.train == runs[0].config.train
    assert [s.config.sample.seed for s in a.samplings] == [0, 1, 2]
    for s in a.samplings:
      assert s.config.sample.sampler == config.sample.sampler
      assert {*runs[0].samplings[0].config.sample.guidance.w} <= {*s.config.sample.guidance.w}
