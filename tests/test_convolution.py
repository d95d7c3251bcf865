"""The convolution by a matrix product is XLA's own, and only where it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cfg_jax.convolution import CHANNELS, POSITIONS, convolve

side = int(POSITIONS**0.5)


def ours_and_flax(size):
  layers = (
    nnx.Conv(CHANNELS, 24, (size, size), rngs=nnx.Rngs(0), conv_general_dilated=op)
    for op in (convolve, jax.lax.conv_general_dilated)
  )
  return [nnx.split(layer) for layer in layers]


def lowered(shape, size, platform, gradient=False):
  (graph, params), _ = ours_and_flax(size)
  f = lambda params, x: nnx.merge(graph, params)(x).sum()  # noqa: E731
  f = jax.jit(jax.grad(f) if gradient else f)
  return f.trace(params, jnp.ones(shape)).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize('shape', [(2, side, side), (3, 4, 8)])
@pytest.mark.parametrize('size', [1, 3])
def test_value_and_gradients_are_those_of_the_convolution(shape, size):
  keys = jax.random.split(jax.random.key(0), 2)
  x = jax.random.normal(keys[0], (*shape, CHANNELS))
  g = jax.random.normal(keys[1], (*shape, 24))
  found = []
  for graph, params in ours_and_flax(size):
    y, back = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)  # noqa: B023
    found.append([y, *jax.tree.leaves(back(g))])
  assert len(found[0]) == 4  # y; bias, kernel, x
  for ours, flax in zip(*found):
    np.testing.assert_allclose(ours, flax, rtol=1e-4, atol=1e-4 * jnp.abs(flax).max())


@pytest.mark.parametrize('gradient', [False, True])
def test_on_cpus_it_is_a_product_where_the_image_is_small_and_wide(gradient):
  small = (2, side, side, CHANNELS)
  assert 'convolution' not in lowered(small, 3, 'cpu', gradient)
  assert 'convolution' in lowered((2, side, side + 1, CHANNELS), 3, 'cpu', gradient)
  assert 'convolution' in lowered(small, 1, 'cpu', gradient)
  for platform in ('cuda', 'tpu'):
    text = lowered(small, 3, platform, gradient)
    assert 'convolution' in text and 'concatenate' not in text


def test_bfloat16_stays_bfloat16():
  y = convolve(
    jnp.ones((1, 4, 4, CHANNELS), jnp.bfloat16),
    jnp.ones((3, 3, CHANNELS, 8), jnp.bfloat16),
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  assert y.dtype == jnp.bfloat16
