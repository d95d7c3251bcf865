"""The page of classifier-free and classifier guidance, at a size of seconds."""

import numpy as np
import pytest

from cfg_jax.core import steps
from cfg_jax.sweep import grid
from experiments import guidance_frontiers as frontiers
from tests.conftest import TINY, load_config, run
from tests.test_readme import COMMANDS, tiny_command


def sets(values):
  return [f'--set={k}={v}' for k, v in values.items() if not isinstance(v, tuple)]


@pytest.mark.slow
def test_the_readmes_commands_at_a_tiny_size(data_dir, tmp_path):
  guide, workdir = tmp_path / 'guide', tmp_path / 'frontiers'
  lines = [line for line in COMMANDS if 'runs/guide ' in f'{line} ' or 'frontiers' in line]
  assert [line.split()[0] for line in lines] == [
    'cfg_jax.train',
    'cfg_jax.evaluate',
    'experiments.guidance_frontiers',
    'cfg_jax.generate',
  ]
  outputs = []
  for line in lines:
    argv = tiny_command(
      line.replace('guided.png', str(tmp_path / 'guided.png')), tmp_path, data_dir
    )
    if 'frontiers' in line:
      argv += ['--guide', str(guide), *sets(TINY | {'data.dir': data_dir})]
    done = run(*argv)
    assert done.returncode == 0, (line, done.stderr)
    outputs.append(done.stdout)
  assert (tmp_path / 'guided.png').exists()
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
  assert said in outputs[2]
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
