"""Guidance in fewer passes: what is compared, what is said of it, and the command."""

import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core import evals
from cfg_jax.report.curves import Curve
from experiments import fewer_passes as fewer
from tests.conftest import TINY, load_config


def test_all_are_of_one_size_and_one_sampler_and_drawn_at_the_same_w():
  config, strengths = load_config('digits'), {}
  for name in fewer.WAYS:
    runs = fewer.runs(config, name)
    for run in runs:
      assert run.config.train == config.train and run.config.method.p_uncond == 0.1
      assert [s.config.sample.seed for s in run.samplings] == [0, 1, 2]
      assert all(s.config.sample.sampler == config.sample.sampler for s in run.samplings)
    drawn = {w for run in runs for w in run.samplings[0].config.sample.guidance.w}
    strengths[name] = {run.config.method.get('guidance') for run in runs}, drawn
  w = {0.1, 0.3, 1.0}
  assert strengths == {
    fewer.PLAIN: ({None}, {0.0} | w),
    fewer.ONE: (w, {0.0}),
    fewer.SHARED: ({None}, {0.0} | w),
  }


def way(name, w, distances, scores, **cost):
  """A way of three seeds, all of whose numbers move alike."""
  moved = np.array([[-0.5], [0.0], [0.5]])
  metrics = {'FD': np.array(distances), 'IS': np.array(scores)}
  metrics |= {k: np.full(len(w), 0.5) for k in ('precision', 'recall')}
  members = tuple(
    Curve('', {}, 'FD', np.array(w), {'FD': metrics['FD'] + m, 'IS': metrics['IS']}) for m in moved
  )
  errors = {k: np.full(len(w), 0.3) for k in metrics}
  return fewer.Way(name, Curve('', {}, 'FD', np.array(w), metrics, errors, {}, members), **cost)


def test_a_point_is_beside_two_passes_at_its_w_and_at_its_score():
  plain = way('two passes', [0, 1], [10.0, 20.0], [8.0, 9.0], calls=2, training=1.0, ms=4.0)
  one = way('one pass', [1], [14.0], [8.5], calls=1, training=1.5, ms=2.0)
  assert fewer.beside_frontier(one, 0, plain)[:2] == pytest.approx((-1, 0))  # of 15 at 8.5
  said = fewer.findings([plain, one])
  assert '0.50 of the time' in said[1] and '1.50 times the FLOPs' in said[1]
  assert '-6 ± 0 (more than noise) from two passes at this w' in said[2]
  assert '-1 ± 0 (more than noise) from their frontier' in said[2]
  rows = fewer.table([plain, one]).splitlines()
  assert rows[2].startswith('| two passes | 0 | 1 |  | 10.00 ± 0.30')
  assert rows[4].startswith('| one pass | 1 | 1 | 2 | 14.00 ± 0.30')


@pytest.mark.slow
def test_the_command_at_a_tiny_size_and_again(call, data_dir, tmp_path, monkeypatch):
  monkeypatch.setattr(fewer.benchmark, 'ROUNDS', 1)
  sizes = {k: v for k, v in TINY.items() if not isinstance(v, tuple)} | {'data.dir': data_dir}
  sizes |= {'train.num_steps': 4, 'model.channel_mults': 1, 'model.attention_resolutions': ''}
  for name, axes in fewer.WAYS.items():
    fewer_axes = [text.replace('=4', '=2').replace('0.1,0.3,1', '1') for text in axes]
    monkeypatch.setitem(fewer.WAYS, name, fewer_axes)
  argv = ['--workdir', tmp_path, *(f'--set={k}={v}' for k, v in sizes.items())]
  done = call(fewer, *argv)
  assert done.returncode == 0, done.stderr
  text = (tmp_path / 'fewer_passes.txt').read_text()
  assert text.split('\n\n')[0] in done.stdout
  assert (tmp_path / 'fewer_passes.png').stat().st_size > 20_000
  config = config_lib.of_run(tmp_path / 'p_uncond=0.1')
  found = fewer.read(tmp_path, config_lib.change(config, ['sample.num_samples=20']))
  assert [w.name for w in found] == list(fewer.WAYS)
  assert [w.calls for w in found[:2]] == [2, 1] and 1 < found[2].calls < 2
  assert found[0].training < found[1].training
  for w, x in zip(found, ([0, 1], [1], [0, 1])):
    assert w.ms > 0 and list(w.curve.x) == x and len(w.curve.members) == 3
    assert np.isfinite(w.curve.values('FD-digits')).all()
  runs = [
    tmp_path / f'p_uncond=0.1{more}' for more in ('', ',guidance=1', ',model.late_condition=2')
  ]
  lines = [evals.read(run / 'evals.jsonl') for run in runs]
  assert [len(of_run) for of_run in lines] == [6, 3, 6]
  again = call(fewer, *argv)
  assert again.returncode == 0, again.stderr
  assert [evals.read(run / 'evals.jsonl') for run in runs] == lines
