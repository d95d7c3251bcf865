"""Many images as one picture, and a picture as a PNG."""

import io
from collections.abc import Sequence
from pathlib import Path

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
  images: np.ndarray, rows: Sequence[str], columns: Sequence[str], gap: int = 0
) -> np.ndarray:
  """`tile` on white, with a name before each row and above each column, in black.

  images: (rows, columns, H, W, C) uint8, C = 1 or 3; rows, columns: their names, or none at all.
  """
  font = ImageFont.load_default(size=max(10, min(16, images.shape[-2] // 3)))
  measure = ImageDraw.Draw(Image.new('L', (1, 1)))
  left = max((int(measure.textlength(name, font)) + 10 for name in rows), default=0)
  top = int(font.size) + 8 if columns else 0
  height, width = (size + gap for size in images.shape[2:4])
  shape = top + height * images.shape[0] - gap, left + width * images.shape[1] - gap
  canvas = Image.new('L', shape[::-1], 255)
  draw = ImageDraw.Draw(canvas)
  for i, name in enumerate(rows):
    draw.text((left - 6, top + i * height + (height - gap) / 2), name, 0, font, anchor='rm')
  for j, name in enumerate(columns):
    draw.text((left + j * width + (width - gap) / 2, top / 2), name, 0, font, anchor='mm')
  picture = np.repeat(np.asarray(canvas)[..., None], images.shape[-1], axis=-1)
  for i, row in enumerate(images):
    for j, image in enumerate(row):
      y, x = top + i * height, left + j * width
      picture[y : y + image.shape[0], x : x + image.shape[1]] = image
  return picture


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
