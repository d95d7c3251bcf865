"""Many images as one picture, and a picture as a PNG."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont


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


def labelled(
  images: np.ndarray, rows: Sequence[str], columns: Sequence[str], pixels: int = 32
) -> np.ndarray:
  """(rows, columns, H, W, C) uint8 → one picture on white, with a name for each row and column.

  Images are enlarged to about `pixels`; rows, columns: the names, of which the columns' are cut to
  the width of their images. Returns (H', W', C).
  """
  images = enlarge(images, pixels)
  height, width, channels = images.shape[2:]
  gap, size = max(2, width // 16), max(10, min(14, height // 3))
  font = ImageFont.load_default(size)
  left = max(int(font.getlength(name)) for name in rows) + 2 * gap
  picture = tile(images, gap)
  opaque = np.where(picture[..., -1:] > 0, picture[..., :-1], 255).astype(np.uint8)
  canvas = np.full((len(opaque) + size + 3 * gap, opaque.shape[1] + left + gap, channels), 255)
  canvas[size + 2 * gap : -gap, left:-gap] = opaque
  drawn = Image.new('L', canvas.shape[1::-1], 255)
  pen = ImageDraw.Draw(drawn)
  for i, name in enumerate(rows):
    at = left - gap, size + 2 * gap + i * (height + gap) + height // 2
    pen.text(at, name, fill=0, font=font, anchor='rm')
  for j, name in enumerate(columns):
    while len(name) > 1 and font.getlength(name) > width + gap:
      name = name[:-1]
    at = left + j * (width + gap) + width // 2, gap + size
    pen.text(at, name, fill=0, font=font, anchor='ms')
  return np.minimum(canvas, np.array(drawn)[..., None]).astype(np.uint8)


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
