"""What a CPU computes is XLA's own convolution, and only a CPU computes it so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cfg_jax.nets.cpu import CHANNELS, POSITIONS, convolve, convolve_upsampled, upsample

side = int(POSITIONS**0.5)


def layer(convolution, channels, size):
  """Its parts, with the same weights for any convolution."""
  return nnx.split(
    nnx.Conv(channels, 24, (size, size), rngs=nnx.Rngs(0), conv_general_dilated=convolution)
  )


def assert_xlas(convolution, shape, size=3, before=lambda x: x):
  """Value and gradients, by parameters and x, are those of XLA's convolution of before(x)."""
  x = jax.random.normal(jax.random.key(0), shape)
  found = []
  for op, first in ((convolution, lambda x: x), (jax.lax.conv_general_dilated, before)):
    graph, params = layer(op, shape[-1], size)
    f = lambda params, x: nnx.merge(graph, params)(first(x))  # noqa: B023, E731
    y, back = jax.vjp(f, params, x)
    g = jax.random.normal(jax.random.key(1), y.shape)
    found.append([y, *jax.tree.leaves(back(g))])
  assert len(found[0]) == 4  # y; bias, kernel, x
  for ours, xlas in zip(*found):
    np.testing.assert_allclose(ours, xlas, rtol=1e-4, atol=1e-4 * jnp.abs(xlas).max())


def lowered(convolution, shape, size, platform, gradient=False):
  graph, params = layer(convolution, shape[-1], size)
  f = lambda params, x: nnx.merge(graph, params)(x).sum()  # noqa: E731
  f = jax.jit(jax.grad(f) if gradient else f)
  return f.trace(params, jnp.ones(shape)).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize('shape', [(2, side, side), (3, 4, 8)])
@pytest.mark.parametrize('size', [1, 3])
def test_value_and_gradients_are_those_of_the_convolution(shape, size):
  assert_xlas(convolve, (*shape, CHANNELS), size)


@pytest.mark.parametrize(
  'shape',
  [(2, 5, 3, 7), (1, side, side, 32), (2, side, side // 2 + 1, CHANNELS), (1, 4, 8, CHANNELS)],
)
def test_the_enlarged_images_convolution_without_enlarging(shape):
  assert_xlas(convolve_upsampled, shape, before=upsample)


def test_upsample_repeats_each_pixel():
  x = np.arange(6.0).reshape(1, 2, 3, 1)
  np.testing.assert_array_equal(upsample(x), np.kron(x, np.ones((1, 2, 2, 1))))


@pytest.mark.parametrize('gradient', [False, True])
def test_on_cpus_it_is_a_product_where_the_image_is_small_and_wide(gradient):
  small = (2, side, side, CHANNELS)
  assert 'convolution' not in lowered(convolve, small, 3, 'cpu', gradient)
  assert 'convolution' in lowered(convolve, (2, side, side + 1, CHANNELS), 3, 'cpu', gradient)
  assert 'convolution' in lowered(convolve, small, 1, 'cpu', gradient)
  for platform in ('cuda', 'tpu'):
    text = lowered(convolve, small, 3, platform, gradient)
    assert 'convolution' in text and 'concatenate' not in text


@pytest.mark.parametrize('gradient', [False, True])
def test_on_cpus_four_small_convolutions_are_the_enlarged_images(gradient):
  def count(platform, shape):
    text = lowered(convolve_upsampled, shape, 3, platform, gradient)
    return text.count('stablehlo.convolution(')

  assert [count(platform, (2, 8, 8, 32)) for platform in ('cpu', 'cuda', 'tpu')] == [4, 1, 1]
  assert count('cpu', (2, side, side, CHANNELS)) == 4  # small and wide before it is enlarged
  assert count('cpu', (2, 4, 4, CHANNELS)) == 0  # a product, of the enlarged images


@pytest.mark.parametrize('convolution', [convolve, convolve_upsampled])
@pytest.mark.parametrize('channels', [32, CHANNELS])
def test_bfloat16_stays_bfloat16(convolution, channels):
  y = convolution(
    jnp.ones((1, 4, 4, channels), jnp.bfloat16),
    jnp.ones((3, 3, channels, 8), jnp.bfloat16),
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  assert y.dtype == jnp.bfloat16
