"""Many images as one picture, and a picture as a PNG."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def tile(images: np.ndarray, gap: int = 0) -> np.ndarray:
  """(rows, columns, H, W, C) uint8 → one picture, (rows H, columns W, C), `gap` pixels between.

  With a gap there is a channel more, alpha: gaps are transparent.
  """
  rows, columns, height, width, channels = images.shape
  if gap:
    opaque = np.full((*images.shape[:4], 1), 255, np.uint8)
    images = np.concatenate([images, opaque], axis=-1)
    images = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)))
    height, width, channels = height + gap, width + gap, channels + 1
  picture = images.swapaxes(1, 2).reshape(rows * height, columns * width, channels)
  return picture[: rows * height - gap, : columns * width - gap]


def enlarge(images: np.ndarray, pixels: int) -> np.ndarray:
  """Images (…, H, W, C) with every pixel repeated until W is about `pixels`, or as they are."""
  scale = max(1, pixels // images.shape[-2])
  return images.repeat(scale, axis=-3).repeat(scale, axis=-2)


def png(picture: np.ndarray, optimize: bool = False) -> bytes:
  """The file of a picture (H, W, C) uint8; C = 1 and 2 are grey, 2 and 4 have alpha.

  optimize: a smaller file of the same pixels, in more time.
  """
  buffer = io.BytesIO()
  image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
  image.save(buffer, 'png', optimize=optimize)
  return buffer.getvalue()


def is_whole(path: Path) -> bool:
  """Whether there is a picture at path, whose checksums are right."""
  try:
    with Image.open(path) as image:
      image.load()
      return True
  except (OSError, SyntaxError, ValueError, EOFError):
    return False
