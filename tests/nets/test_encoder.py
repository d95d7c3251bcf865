"""ADM's classifier: its size, its heads, and that a sample's gradient is its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.nets import encoder
from cfg_jax.nets.encoder import EncoderConfig

ADM = EncoderConfig(
  image_shape=(64, 64, 3),
  num_classes=1000,
  channels=128,
  channel_mults=(1, 2, 3, 4),
  num_blocks=4,
  attention_resolutions=(32, 16, 8),
  head_channels=64,
  num_heads=None,
  dropout=0.0,
  norm_groups=32,
  dtype='float32',
  remat=False,
)
TINY = dataclasses.replace(
  ADM,
  image_shape=(8, 8, 1),
  num_classes=5,
  channels=8,
  channel_mults=(1, 2),
  num_blocks=1,
  attention_resolutions=(4,),
  head_channels=8,
  norm_groups=4,
)


@pytest.mark.parametrize(
  'size, mults, blocks, parameters',
  [
    (64, (1, 2, 3, 4), 4, 65_438_568),
    (128, (1, 1, 2, 3, 4), 2, 42_568_040),
    (256, (1, 1, 2, 2, 4, 4), 2, 54_096_360),
  ],
)
def test_it_has_as_many_parameters_as_adms(size, mults, blocks, parameters):
  config = dataclasses.replace(
    ADM, image_shape=(size, size, 3), channel_mults=mults, num_blocks=blocks
  )
  assert encoder.num_parameters(config) == parameters


def tiny(pool, **changes):
  config = dataclasses.replace(TINY, pool=pool, **changes)
  params = encoder.create_params(config, 0)
  # No layer may be zero, else its inputs have no effect.
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
  z = rng.normal(size=(4, 8, 8, 1)).astype(np.float32)
  return encoder.apply_fn(config), params, z, np.linspace(-20, 20, 4, dtype=np.float32)


@pytest.mark.parametrize('pool', encoder.HEADS)
def test_logits_are_linear_in_the_features(pool):
  apply, params, z, lam = tiny(pool)
  logits, features = apply(params, z, lam)
  proj = params['head']['proj']
  assert logits.shape == (4, 5) and logits.dtype == features.dtype == jnp.float32
  np.testing.assert_allclose(features @ proj['kernel'] + proj['bias'], logits, rtol=1e-5, atol=1e-5)
  assert np.abs(np.diff(logits, axis=0)).min() > 0  # of z and λ


@pytest.mark.parametrize('pool', encoder.HEADS)
def test_a_gradient_is_of_its_own_image_and_right(pool):
  """ADM's gradient of a batch's sum; against finite differences along a random direction."""
  apply, params, z, lam = tiny(pool)
  c = np.arange(4)

  def log_prob(z):
    return jax.nn.log_softmax(apply(params, z, lam)[0])[c, c]

  gradient = jax.jit(jax.grad(lambda z: log_prob(z).sum()))
  before, other = gradient(z), z.copy()
  other[2] += 1
  changed = np.any(np.asarray(before) != gradient(other), axis=(1, 2, 3))
  assert changed.tolist() == [False, False, True, False]
  direction, h = np.random.default_rng(1).normal(size=z.shape).astype(np.float32), 3e-3
  slope = (log_prob(z + h * direction) - log_prob(z - h * direction)) / (2 * h)
  exact = (np.asarray(before) * direction).sum((1, 2, 3))
  np.testing.assert_allclose(slope, exact, rtol=5e-2, atol=1e-2)


def test_bfloat16_is_near_and_ends_in_float32():
  apply, params, z, lam = tiny('attention')
  half = tiny('attention', dtype='bfloat16')[0]
  (exact, _), (found, features) = apply(params, z, lam), half(params, z, lam)
  assert found.dtype == features.dtype == jnp.float32
  assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()
