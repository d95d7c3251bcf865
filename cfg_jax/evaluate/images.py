"""Images from anywhere, as a stream: an .npz file, a folder of PNG or JPEG files, our own shards.

Never more than one batch of an .npz, one file of a folder or one shard is in memory.
"""

import dataclasses
import logging
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from cfg_jax.core.errors import UserError
from cfg_jax.core.files import NPZ_DAMAGE

log = logging.getLogger(__name__)

SUFFIXES = ('.png', '.jpg', '.jpeg')
PIECE_BYTES = 2**26  # of an .npz, at a time


@dataclasses.dataclass(frozen=True)
class Images:
  """n uint8 images of one shape (H, W, C), in an order that is always the same."""

  path: Path
  n: int
  shape: tuple[int, int, int]
  pieces: Callable[[], Iterator[np.ndarray]]  # all, from the first: (any number, H, W, C)

  def batches(self, size: int, limit: int | None = None) -> Iterator[np.ndarray]:
    """Yields uint8 (size, H, W, C), the last one maybe shorter, of the first `limit` images.

    Raises UserError where the files turn out to be damaged.
    """
    left = self.n if limit is None else min(limit, self.n)
    held, count = [], 0
    for piece in self.pieces():
      piece = piece[:left]
      left -= len(piece)
      while len(piece):
        held.append(piece[: size - count])
        count += len(held[-1])
        piece = piece[len(held[-1]) :]
        if count == size:
          yield np.concatenate(held)
          held, count = [], 0
      if not left:
        break
    if count:
      yield np.concatenate(held)


def to_uint8(x: np.ndarray, how: str = 'round') -> np.ndarray:
  """Floats in [−1, 1], any shape, to 0..255. how: 'round' to nearest, or 'truncate', as ADM does.

  Stated since it shows: truncating moves Inception features by 1e-3 relative. Raises UserError
  where values are outside [−1, 1].
  """
  x = np.asarray(x)
  if not (np.abs(x) <= 1).all():  # NaN fails too
    raise UserError(f'images reach from {x.min()} to {x.max()}; they must lie in [-1, 1].')
  levels = (x + 1) * 127.5
  if how not in ('round', 'truncate'):
    raise UserError(f"quantisation={how!r} is unknown; use 'round' or 'truncate'.")
  return (np.round(levels) if how == 'round' else levels).astype(np.uint8)


def open_images(path: str | Path) -> Images:
  """The images at `path`: an .npz file, a folder of pictures (nested or flat), or of our shards.

  .npz: arr_0, or else images, uint8 (N, H, W, 3) or (N, H, W, 1). Pictures: all .png, .jpg and
  .jpeg below the folder, by path. Raises UserError on anything else.
  """
  path = Path(path)
  if path.is_dir():
    shards = sorted(path.glob('*.npz'))
    images = _shards(path, shards) if shards else _pictures(path)
  elif path.suffix == '.npz' and path.is_file():
    images = _npz(path)
  elif path.exists():
    raise UserError(f'{path} is neither an .npz file nor a folder of images.')
  else:
    raise UserError(f'{path} does not exist.')
  first = next(images.batches(64), None)
  if first is None:
    raise UserError(f'{path} holds no images.')
  if first.max() <= 1:
    raise UserError(f'{path} has no value above 1 in its first images; they must span 0 to 255.')
  return images


def _check(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
  """Raises UserError unless uint8 (N, H, W, 1 or 3), with the remedy."""
  if dtype == np.uint8 and len(shape) == 4 and shape[3] in (1, 3) and min(shape[1:3]) > 0:
    return
  if dtype != np.uint8:
    remedy = 'convert them with cfg_jax.evaluate.images.to_uint8'
  elif len(shape) == 3:
    remedy = 'add a last axis of one channel'
  elif len(shape) == 4 and shape[1] in (1, 3):
    remedy = 'transpose (0, 2, 3, 1)'
  elif len(shape) == 4 and shape[3] == 4:
    remedy = 'drop the alpha channel'
  else:
    remedy = 'store them so'
  raise UserError(f'{path} has {dtype} {shape}; images are uint8 (N, H, W, 3 or 1): {remedy}.')


def _npz(path: Path) -> Images:
  """One array of an .npz, read as a stream: ADM's sample files hold up to 10 GB."""
  name, shape = _npz_header(path)
  image_size = math.prod(shape[1:])

  def pieces() -> Iterator[np.ndarray]:
    rows = max(1, PIECE_BYTES // image_size)
    try:
      with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        _array_header(file)
        for start in range(0, shape[0], rows):  # the last read compares zip's checksum
          count = min(rows, shape[0] - start)
          data = file.read(count * image_size)
          yield np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
    except NPZ_DAMAGE as error:
      raise UserError(f'{path} is damaged: {error}') from None

  return Images(path, shape[0], shape[1:], pieces)


def _npz_header(path: Path) -> tuple[str, tuple[int, ...]]:
  """Which array holds the images, and its shape; reads no pixel."""
  try:
    with zipfile.ZipFile(path) as archive:
      names = [n.removesuffix('.npy') for n in archive.namelist()]
      name = next((n for n in ('arr_0', 'images') if n in names), names[0])
      with archive.open(f'{name}.npy') as file:
        shape, fortran, dtype = _array_header(file)
      promised = 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize
      if promised > archive.getinfo(f'{name}.npy').file_size:
        raise ValueError(f'{name} promises {shape} and holds less')
  except NPZ_DAMAGE as error:
    raise UserError(f'{path} is damaged or no .npz file: {error}') from None
  if name not in ('arr_0', 'images'):
    raise UserError(f'{path} has {", ".join(names)}, but no arr_0 or images.')
  _check(path, dtype, shape)
  if fortran:
    raise UserError(f'{path}: {name} is in Fortran order; save numpy.ascontiguousarray of it.')
  return name + '.npy', shape


def _array_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
  version = np.lib.format.read_magic(file)
  if version == (1, 0):
    return np.lib.format.read_array_header_1_0(file)
  return np.lib.format.read_array_header_2_0(file)


def _shards(path: Path, files: list[Path]) -> Images:
  """Our own shards (images, labels, indices), and other folders of .npz files, in order of name."""
  headers = [_npz_header(file) for file in files]
  shapes = {shape[1:] for _, shape in headers}
  if len(shapes) > 1:
    raise UserError(f'{path} mixes images of shapes {sorted(shapes)}; evaluate them separately.')

  def pieces() -> Iterator[np.ndarray]:
    for file in files:
      yield from _npz(file).pieces()

  return Images(path, sum(shape[0] for _, shape in headers), shapes.pop(), pieces)


def _pictures(path: Path) -> Images:
  files = sorted(f for f in path.rglob('*') if f.suffix.lower() in SUFFIXES)
  if not files:
    raise UserError(f'{path} holds no .npz, .png, .jpg or .jpeg file.')
  if any(f.suffix.lower() != '.png' for f in files):
    log.info('%s holds JPEG files: what they lost is part of what is measured.', path)
  # Grey files stay grey where all are: the first coloured one, mostly the first, decides.
  channels = 3 if any(_picture(file).shape[2] == 3 for file in files) else 1
  shape = (*_picture(files[0]).shape[:2], channels)
  logged = False

  def pieces() -> Iterator[np.ndarray]:
    nonlocal logged
    for file in files:
      image = _picture(file)
      if image.shape[2] < channels:
        image = np.repeat(image, channels, axis=2)
        if not logged:
          log.info('%s (the first of its kind) is grey: repeated as red, green and blue.', file)
          logged = True
      if image.shape != shape:
        raise UserError(
          f'{file} is {image.shape} and {files[0]} {shape}; give all images one size.'
        )
      yield image[None]

  return Images(path, len(files), shape, pieces)


def _picture(file: Path) -> np.ndarray:
  """uint8 (H, W, 3), or (H, W, 1) of a grey file."""
  try:
    with Image.open(file) as image:
      if image.mode == 'P':
        image = image.convert('RGB')
      if image.mode not in ('RGB', 'L'):
        raise UserError(f'{file} has mode {image.mode}; save it as 8-bit RGB or grey.')
      array = np.asarray(image)
  except UserError:
    raise
  except Exception as error:  # Pillow raises half a dozen types on damaged files, or huge ones
    raise UserError(f'{file} cannot be read: {error}') from None
  return array[..., None] if array.ndim == 2 else array
