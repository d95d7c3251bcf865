"""From an encoded photograph to a small square: central crop, exact area averages, PNG.

The authors' own way from imagenet2012 to 64×64 and 128×128, as the public code of another paper of
theirs has it (google-research, diffusion_distillation; Salimans & Ho 2022). On the same pixels the
averages here are TensorFlow's `tf.image.resize(…, 'area')` (checked with 2.21). Two things differ:
they train on them unrounded, we store the nearest uint8; and TensorFlow decodes JPEG by a fast DCT
by default, which made red and blue about 1 level lower on photographs, where Pillow gives
what its accurate DCT does. (ADM crops and resizes in another way: halvings, then bicubic.)
"""

import functools
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cfg_jax.core.errors import UserError


def is_grey(path: Path) -> bool:
  """Whether the file's header is that of an image with no colour; True where it is no image.

  What cannot be read is left out later, and decides nothing.
  """
  try:
    with warnings.catch_warnings(action='ignore'), Image.open(path) as image:
      return image.mode in ('1', 'L', 'LA', 'La') or image.mode[0] in 'IF'
  except Exception:  # as in `decode`
    return True


def decode(data: bytes, *, upright: bool, channels: int = 3) -> tuple[np.ndarray, str]:
  """An encoded image as uint8 (H, W, channels), and what it was: 'JPEG RGB', 'JPEG CMYK', ….

  The format is told by content, not by name (ImageNet has a PNG called .JPEG). With three channels
  grey and CMYK become RGB, with one all become grey; transparency is dropped, and `upright` turns a
  photograph as its EXIF data says. Raises ValueError for bytes that are not a whole 8-bit image.
  """
  try:
    with warnings.catch_warnings(action='ignore'):  # some of ImageNet's have odd EXIF data
      with Image.open(io.BytesIO(data)) as image:
        kind = f'{image.format} {image.mode}'
        if image.mode[0] in 'IF':  # 16 bits or floats: Pillow would clip them to white
          raise UserError(f'{kind} has more than 8 bits')
        turned = ImageOps.exif_transpose(image) if upright else image
        pixels = np.asarray(turned.convert({1: 'L', 3: 'RGB'}[channels]))
        return pixels.reshape(*pixels.shape[:2], channels), kind
  except Exception as error:  # Pillow raises half a dozen types on damaged bytes
    raise UserError(str(error)) from None


def central_square(image: np.ndarray) -> np.ndarray:
  """The central square of an (H, W, C) image, a view of shape (S, S, C) with S = min(H, W).

  An odd margin is cut as the authors cut it: the square starts at ⌊H/2⌋ − ⌊W/2⌋.
  """
  h, w, _ = image.shape
  s, offset = min(h, w), abs(h // 2 - w // 2)
  return image[offset : offset + s] if h > w else image[:, offset : offset + s]


@functools.lru_cache(maxsize=64)
def overlaps(n: int, m: int) -> np.ndarray:
  """How much of each output pixel j every input pixel i covers when n pixels become m: (m, n).

  In units of 1/(n m) of the line, input i covers [i m, (i+1) m] and output j [j n, (j+1) n]. So the
  entries (float64) are integers and each row sums to n, whether the image shrinks or grows.
  """
  i, j = np.arange(n), np.arange(m)[:, None]
  return np.maximum(0.0, np.minimum((i + 1) * m, (j + 1) * n) - np.maximum(i * m, j * n))


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Area averages of a square uint8 image (S, S, C), rounded half up: uint8 (size, size, C).

  All sums are integers that their type holds exactly (255 S < 2^24 in float32 for S up to 65 793,
  255 S² < 2^53 in float64): the result is exact, and the same on every machine.
  """
  s, _, c = image.shape
  weights = overlaps(s, size)
  rows = weights.astype(np.float32) @ image.reshape(s, s * c).astype(np.float32)  # (size, S C)
  columns = rows.reshape(size, s, c).transpose(1, 0, 2).reshape(s, size * c)
  sums = (weights @ columns).reshape(size, size, c).transpose(1, 0, 2).astype(np.int64)
  return ((2 * sums + s * s) // (2 * s * s)).astype(np.uint8)


def encode(image: np.ndarray) -> bytes:
  """PNG bytes of a uint8 (H, W, 1) or (H, W, 3) image."""
  buffer = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, 'PNG')
  return buffer.getvalue()
