"""What a CPU computes is XLA's own convolution, JAX's own attention, and plain group means."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cfg_jax.nets.cpu import (
  CHANNELS,
  POSITIONS,
  attend,
  convolve,
  convolve_upsampled,
  mean_of_groups,
  over_groups,
  upsample,
)

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


def test_a_groups_numbers_and_their_gradients():
  x, g = jax.random.normal(jax.random.key(0), (2, 3, 5, 24))  # a float32 keeps all of its bits
  wide, back = jax.vjp(lambda x: over_groups(x, 6), x)
  np.testing.assert_array_equal(wide, np.repeat(x, 6, axis=-1))
  ct = np.tile(g, 6)
  np.testing.assert_allclose(back(ct)[0], ct.reshape(3, 5, 24, 6).sum(-1), rtol=1e-5, atol=1e-6)
  mean, back = jax.vjp(lambda x: mean_of_groups(x, 6), x)
  np.testing.assert_allclose(mean, x.reshape(3, 5, 4, 6).mean(-1), rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(back(mean)[0], np.repeat(mean / 6, 6, axis=-1), rtol=1e-6)


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


@pytest.mark.parametrize('scale', [1, 30])  # of logits up to thousands, where exp overflows
def test_attention_is_the_softmax_of_each_head(scale):
  """Value and gradients against float64."""
  rng = np.random.default_rng(0)
  q, k, v, g = (scale**p * rng.normal(size=(2, 9, 3, 8)) for p in (1, 1, 0, 0))
  logits = np.einsum('btnd,bsnd->bnts', q, k) / np.sqrt(8)
  p = np.exp(logits - logits.max(-1, keepdims=True))
  p /= p.sum(-1, keepdims=True)
  of_p = np.einsum('btnd,bsnd->bnts', g, v)
  of_logits = p * (of_p - (p * of_p).sum(-1, keepdims=True)) / np.sqrt(8)
  want = [
    np.einsum('bnts,bsnd->btnd', p, v),
    np.einsum('bnts,bsnd->btnd', of_logits, k),
    np.einsum('bnts,btnd->bsnd', of_logits, q),
    np.einsum('bnts,btnd->bsnd', p, g),
  ]
  out, back = jax.vjp(attend, *(jnp.asarray(x, jnp.float32) for x in (q, k, v)))
  for ours, exact in zip([out, *back(jnp.asarray(g, jnp.float32))], want):
    np.testing.assert_allclose(ours, exact, atol=2e-5 * scale**2)


def test_attention_in_bfloat16_is_near():
  x = jax.random.normal(jax.random.key(0), (2, 64, 4, 16))
  low = attend(*[x.astype(jnp.bfloat16)] * 3)
  assert low.dtype == jnp.bfloat16
  np.testing.assert_allclose(low.astype(jnp.float32), attend(x, x, x), atol=0.03)


def test_gradients_inside_a_loop_are_convolutions_of_the_fast_layout():
  """XLA for a CPU brings others into it at the top of a program alone; the slow way is tenfold."""
  graph, params = layer(convolve, 4, 3)
  f = lambda params, x: jnp.sum(jnp.sin(nnx.merge(graph, params)(x)))  # noqa: E731

  def loop(params, x):
    step = lambda carry, _: (jax.tree.map(jnp.add, carry, jax.grad(f, (0, 1))(*carry)), None)  # noqa: E731
    return jax.lax.scan(step, (params, x), None, length=3)[0]

  text = jax.jit(loop).lower(params, jnp.ones((2, 8, 8, 4))).compile().as_text()
  layouts = re.findall(r'convolution\(.*dim_labels=([\w>-]+)', text)
  assert len(layouts) >= 3 and {*layouts} == {'b01f_01io->b01f'}
