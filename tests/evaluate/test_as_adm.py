"""Metrics as ADM's evaluator computes them, and the switch that asks for them."""

import json

import numpy as np
import pytest

from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate import as_adm, metrics
from cfg_jax.generate import __main__ as generate
from cfg_jax.methods import drawing
from cfg_jax.train.loop import train
from tests.evaluate.conftest import of_samples


def test_is_in_order_by_five_thousand(monkeypatch):
  """Sorted by class each part sees few classes: 2 of 4 in either half, where all see 4."""
  probs = np.eye(4)[np.repeat(np.arange(4), 5)]
  halves = np.eye(2)[np.arange(10_000) // 5000]
  assert as_adm.inception_score(halves) == (pytest.approx(1), pytest.approx(0))
  monkeypatch.setattr(as_adm, 'SPLIT', 10)
  assert as_adm.inception_score(probs) == (pytest.approx(2), pytest.approx(0))
  monkeypatch.setattr(as_adm, 'SPLIT', 15)  # three classes, then one
  assert as_adm.inception_score(probs) == (pytest.approx(2), pytest.approx(1))
  monkeypatch.setattr(as_adm, 'SPLIT', 5000)
  assert as_adm.inception_score(probs)[0] == pytest.approx(4)


def test_distances_are_those_of_float16():
  """Term by term in NumPy's own float16; beyond it, float32."""
  x = np.array([[3.001, 0.0], [1 / 3, 2.0]], np.float32)
  half, two = np.float16, np.float16(2)
  a, b = half(x[0]), half(x[1])
  norms = [half(np.float32(v[0]) ** 2 + np.float32(v[1]) ** 2) for v in (a, b)]
  product = half(np.float32(a[0]) * np.float32(b[0]))
  expected = norms[0] - two * product + norms[1]
  found = as_adm.squared_distances(x[:1], x[1:])
  assert found.dtype == np.float32 and found[0, 0] == np.float32(expected)
  assert found[0, 0] != np.square(x[0] - x[1]).sum()
  large = 1000 * x
  np.testing.assert_allclose(
    as_adm.squared_distances(large[:1], large[1:]), np.square(large[0] - large[1]).sum(), rtol=1e-5
  )


def test_precision_and_recall_are_ours_where_float16_is_exact():
  rng = np.random.default_rng(0)
  real, fake = rng.integers(-6, 7, (1100, 3)), rng.integers(-5, 8, (1050, 3))
  assert as_adm.precision_recall(real, fake) == metrics.precision_recall(real, fake)
  real, fake = rng.normal(size=(2, 500, 64))
  ours, adms = (
    np.array(f(real, fake)) for f in (metrics.precision_recall, as_adm.precision_recall)
  )
  assert 0 < np.abs(ours - adms).max() < 0.05
  with pytest.raises(ValueError, match='k=3 neighbours among 3 fake'):
    as_adm.precision_recall(real, fake[:3])


def test_truncation_is_the_level_below():
  x = np.linspace(-1.1, 1.1, 1001, dtype=np.float32)
  levels = np.clip((x + 1) * np.float32(127.5), 0, 255)
  np.testing.assert_array_equal(drawing.to_uint8(x, 'truncate'), np.floor(levels))
  np.testing.assert_array_equal(drawing.to_uint8(x), np.round(levels))


@pytest.mark.slow
def test_the_switch_on_a_run(tiny, tmp_path, call):
  """Its samples are sets of their own, and its line says how everything was computed."""
  train(tiny, tmp_path)
  by_us = ('--workdir', tmp_path, '--w', '1')
  for flags in (by_us, (*by_us, '--as_adm')):
    for command in (generate, evaluate):
      done = call(command, *flags)
      assert done.returncode == 0, done.stderr
  ours, adms = map(json.loads, (tmp_path / 'evals.jsonl').read_text().splitlines())
  assert (ours['quantisation'], adms['quantisation']) == ('round', 'truncate')
  assert ours['samples'] != adms['samples']
  assert 'quantisation' not in ours['settings']['sample']
  assert adms['metric_settings'] == ours['metric_settings'] | as_adm.SETTINGS
  rounded, truncated = (
    np.concatenate([np.load(f)['images'] for f in sorted((tmp_path / x['samples']).glob('*.npz'))])
    for x in (ours, adms)
  )
  below = rounded.astype(int) - truncated
  assert set(np.unique(below)) == {0, 1} and 0.2 < below.mean() < 0.8
  assert adms['metrics']['IS'] != ours['metrics']['IS'] and adms['metrics']['IS_std'] == 0


def test_the_switch_on_samples_from_elsewhere(folder, call):
  """Truncated samples are compared with a reference that is not."""
  done = call(evaluate, *of_samples(folder), '--as_adm')
  assert done.returncode == 0, done.stderr
  line = json.loads(done.stdout)
  assert line['quantisation'] == 'truncate' and line['metrics']['IS_std'] == 0
