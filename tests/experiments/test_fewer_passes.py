"""Guidance in fewer passes: what is compared, what is said of it, and the command."""

import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.evaluate.runs import evaluate
from cfg_jax.generate.store import sample_sets
from cfg_jax.plan.flops import Flops
from cfg_jax.report.curves import Curve
from experiments import fewer_passes as fewer
from tests.conftest import TINY, load_config
from tests.generate.test_guide import random_run


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
def test_the_command_of_models_that_are_there(call, data_dir, tmp_path, monkeypatch):
  """Of random ones and random samples, evaluated here: nothing is left to the sweep."""
  monkeypatch.setattr(fewer, 'TURNS', 1)
  counted = lambda config, remat: Flops(2e9 if 'guidance' in config.method else 1e9, 0, 0)  # noqa: E731
  monkeypatch.setattr(fewer.cost, 'train_flops', counted)  # seconds
  shorter = {'=4': '=2', '0.1,0.3,1': '0.3,1', '0,1,2': '0,1'}
  for name, axes in fewer.WAYS.items():
    text = ' '.join(axes)
    for long, short in shorter.items():
      text = text.replace(long, short)
    monkeypatch.setitem(fewer.WAYS, name, text.split())
  sizes = {k: v for k, v in TINY.items() if not isinstance(v, tuple)} | {'data.dir': data_dir}
  sizes |= {'train.num_steps': 3, 'model.channel_mults': 1, 'model.attention_resolutions': ''}
  sets = [f'{k}={v}' for k, v in sizes.items()]
  config = config_lib.change(load_config('digits'), sets)
  random = np.random.default_rng(0)
  for seed, run in enumerate(run for name in fewer.WAYS for run in fewer.runs(config, name)):
    random_run(run.config, tmp_path / run.name, seed)
    for sampling in run.samplings:
      for of_w in sample_sets(sampling.config.sample, sampling.step):
        images = random.integers(0, 256, (20, 8, 8, 1), np.uint8)
        of_w.write(tmp_path / run.name, 0, images, np.arange(20, dtype=np.int32) % 10, {})
      evaluate(sampling.config, tmp_path / run.name, sampling.step)
  done = call(fewer, '--workdir', tmp_path, *(f'--set={text}' for text in sets))
  assert done.returncode == 0, done.stderr
  words, table = (tmp_path / 'fewer_passes.txt').read_text().split('\n\n')
  assert words in done.stdout and words.count('from two passes at this w') == 5
  assert '2.00 times the FLOPs' in words
  rows = [row.strip('| ').split(' | ') for row in table.splitlines()[2:]]
  assert [row[:2] for row in rows] == [
    *([fewer.PLAIN, w] for w in ('0', '0.3', '1')),
    *([fewer.ONE, w] for w in ('0.3', '1')),
    *([fewer.SHARED, w] for w in ('0', '0.3', '1')),
  ]
  assert [row[2] for row in rows[:6]] == ['1', '2', '2', '1', '1', '1']
  assert 1 < float(rows[6][2]) == float(rows[7][2]) < 2
  for row in (row for row in rows if row[1] != '0'):
    assert float(row[3]) > 0 and ' ± ' in row[4]
  assert (tmp_path / 'fewer_passes.png').stat().st_size > 20_000
