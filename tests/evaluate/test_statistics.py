"""Streamed moments against NumPy's on the whole array."""

import numpy as np
import pytest

from cfg_jax.evaluate.statistics import Moments


def features(n=1000, dim=24, seed=0):
  """Correlated features far from zero, where a float32 Σffᵀ would lose digits."""
  rng = np.random.default_rng(seed)
  return rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + 50


def assert_moments_of(moments, f, rtol=1e-10):
  assert moments.n == len(f)
  np.testing.assert_allclose(moments.mean, f.mean(axis=0), rtol=1e-13)
  scale = np.abs(np.cov(f, rowvar=False)).max()
  np.testing.assert_allclose(moments.cov, np.cov(f, rowvar=False), rtol=0, atol=rtol * scale)


def test_any_batching_gives_the_whole():
  f = features()
  for batch in (1, 7, 64, 1000):
    moments = Moments.zeros(24)
    for i in range(0, 1000, batch):
      moments.update(f[i : i + batch])
    assert_moments_of(moments, f)


def test_parts_add_up_in_any_order():
  f = features()
  a, b, c = (Moments.of(part) for part in np.split(f, [100, 137]))
  assert_moments_of(a + b + c, f)
  assert_moments_of(c + Moments.zeros(24) + (b + a), f)
  assert a.n == 100, 'the parts stay as they were'


def test_masked_rows_count_for_nothing():
  f = features(100)
  padded = np.concatenate([f, np.full((28, 24), np.nan)])
  assert_moments_of(Moments.zeros(24).update(padded, np.arange(128) < 100), f)


def test_float32_features_accumulate_in_float64():
  f = features().astype(np.float32)
  moments = Moments.zeros(24).update(f[:500]).update(f[500:])
  assert_moments_of(moments, f.astype(np.float64))


def test_few_rows_warn():
  with pytest.warns(UserWarning, match='24 images for 24 features'):
    Moments.of(features(24)).cov  # noqa: B018


def test_bad_input_adds_nothing():
  moments = Moments.of(features(100))
  bad = features(10)
  bad[3, 3] = np.inf
  with pytest.raises(ValueError, match='NaN or infinite'):
    moments.update(bad)
  assert_moments_of(moments, features(100))
  with pytest.raises(ValueError, match=r'\(N, 24\)'):
    moments.update(np.zeros((5, 23)))
  with pytest.raises(ValueError, match='do not add up'):
    moments + Moments.zeros(23)
  with pytest.raises(ValueError, match='at least two'):
    Moments.of(features(1)).cov  # noqa: B018
