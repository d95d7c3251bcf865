"""How images of any size become the FID Inception network's input: 299 pixels, two conventions."""

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.core.errors import UserError

SIZE = 299  # the network's input, pixels


def resize(images: jax.Array, how: str) -> jax.Array:
  """Bilinear, without antialiasing, to (N, 299, 299, C), on the scale of the input. float32 NHWC.

  how='tf1': pixel i samples at i·n/299, as TensorFlow 1 does, and with it the original FID and IS
  code, ADM, EDM and torch-fidelity. how='half_pixel': at (i + ½)·n/299 − ½, as pytorch-fid does.
  """
  for axis in (2, 1):
    n = images.shape[axis]
    low, high, fraction = grid(n, how)
    a, b = jnp.take(images, low, axis), jnp.take(images, high, axis)
    images = a + (b - a) * fraction.reshape([-1 if i == axis else 1 for i in range(4)])
  return images


def grid(n: int, how: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For each of 299 pixels: its two neighbours among n, and how far from the first it lies.

  Rounded to float32 where the originals round: elsewhere it moves a pixel by up to 1e-3 of 255.
  """
  i, scale = np.arange(SIZE), float(np.float32(n / SIZE))
  if how == 'tf1':
    source = i * scale
  elif how == 'half_pixel':
    source = np.maximum((i + 0.5) * scale - 0.5, 0)
  else:
    raise UserError(f"resize={how!r} is unknown; use 'tf1' or 'half_pixel'.")
  source = source.astype(np.float32)
  low = np.minimum(source.astype(np.int32), n - 1)
  return low, np.minimum(low + 1, n - 1), source - low


def scale(images: jax.Array, how: str) -> jax.Array:
  """0..255 to what the network was fed: (x − 128)/128, or 2x/255 − 1 with pytorch-fid's resize."""
  return (images - 128) / 128 if how == 'tf1' else 2 * (images / 255) - 1
