"""The 3×3 convolution, which a CPU computes as one matrix product where that is faster.

For the gradients of a convolution XLA for a CPU first transposes kernel and images. Where these are
small beside the kernel, patches for a matrix product cost less: ADM-64's step takes a tenth less
time. GPUs and TPUs always get XLA's own.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

POSITIONS, CHANNELS = 256, 256  # measured on ADM-64: at most H·W, at least C_in


def convolve(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
  """`jax.lax.conv_general_dilated` of x (B, H, W, C_in) with a kernel (h, w, C_in, C_out).

  For `nnx.Conv`, with its default strides and padding. Returns (B, H, W, C_out).
  """
  convolution = functools.partial(
    jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **kwargs
  )
  _, height, width, channels = x.shape
  if kernel.shape[:2] != (3, 3) or height * width > POSITIONS or channels < CHANNELS:
    return convolution(x, kernel)
  return _of_platform(convolution, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _of_platform(convolution: Callable, x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The platform is chosen once forward and once backward, so that only x and kernel are kept."""
  return jax.lax.platform_dependent(x, kernel, cpu=_product, default=convolution)


def _gradients(convolution, kept, gradient):
  def of(f):
    return lambda x, kernel, gradient: jax.vjp(f, x, kernel)[1](gradient)

  return jax.lax.platform_dependent(*kept, gradient, cpu=of(_product), default=of(convolution))


_of_platform.defvjp(lambda f, x, kernel: (_of_platform(f, x, kernel), (x, kernel)), _gradients)


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Each position's 3×3 patch, times the kernel."""
  b, h, w, _ = x.shape
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  patches = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
  patches = jnp.concatenate(patches, axis=-1).reshape(b * h * w, -1)
  return (patches @ kernel.reshape(patches.shape[-1], -1)).reshape(b, h, w, -1)
