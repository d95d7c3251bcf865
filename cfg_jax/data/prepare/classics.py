"""MNIST, Fashion-MNIST and CIFAR-10 from the files they are published in, labelled as TFDS does."""

import gzip
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from cfg_jax.core.errors import UserError
from cfg_jax.data.prepare import sources

CLASS_NAMES = {
  'mnist': [str(digit) for digit in range(10)],
  'fashion_mnist': (
    'T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot'.split(',')
  ),
}
SHARD_IMAGES = 10_000


def idx_source(name: str, folder: Path) -> sources.Source:
  """`mnist` or `fashion_mnist` from the folder of its four IDX files, gzipped or not."""
  splits = {}
  for split, prefix in {'train': 'train', 'test': 't10k'}.items():
    images = _read_idx(folder / f'{prefix}-images-idx3-ubyte', 3)
    splits[split] = images[..., None], _read_idx(folder / f'{prefix}-labels-idx1-ubyte', 1)
  return _source(folder, CLASS_NAMES[name], splits)


def cifar10_source(path: Path) -> sources.Source:
  """`cifar10` from cifar-10-binary.tar.gz (the Python version is pickles: we open none)."""
  try:
    with tarfile.open(path) as tar:
      files = {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.isfile()}
    class_names = files['batches.meta.txt'].decode().split()
    train = b''.join(files[f'data_batch_{i}.bin'] for i in range(1, 6))
    test = files['test_batch.bin']
  except (tarfile.TarError, EOFError, OSError) as error:
    raise UserError(
      f'{path} ends early or is not a tar ({str(error).splitlines()[0]}): fetch it again'
    ) from None
  except KeyError as error:
    raise UserError(f'{path} lacks {error}: this takes cifar-10-binary.tar.gz') from None
  splits = {}
  for split, data in {'train': train, 'test': test}.items():
    # A record is one byte of label and 3 × 32 × 32 bytes of image, channels first.
    if len(data) % 3073:
      raise UserError(f'{path} has {len(data)} bytes of {split}, no multiple of 3073')
    records = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    splits[split] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]
  return _source(path, class_names, splits)


def _read_idx(path: Path, ndim: int) -> np.ndarray:
  """A uint8 array from an IDX file: 0, 0, 8, ndim, the shape as big-endian int32, the bytes."""
  zipped = path.with_name(path.name + '.gz')
  try:
    data = path.read_bytes() if path.exists() else gzip.decompress(zipped.read_bytes())
  except FileNotFoundError:
    raise UserError(f'{path.parent} lacks {path.name} or {zipped.name}') from None
  except (EOFError, OSError) as error:
    raise UserError(f'{zipped} cannot be unzipped ({error}): fetch it again') from None
  start = 4 + 4 * ndim
  shape = np.frombuffer(data[4:start], '>i4').tolist()
  if data[:4] != bytes([0, 0, 8, ndim]) or len(data) != start + np.prod(shape, dtype=int):
    raise UserError(f'{path} is not a whole IDX file of {ndim} dimensions: fetch it again')
  return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _source(path: Path, class_names: list[str], splits: dict) -> sources.Source:
  shards = {}
  for split, (images, labels) in splits.items():
    if len(images) != len(labels) or len(images) == 0:
      raise UserError(f'{path} has {len(images)} {split} images and {len(labels)} labels')
    if labels.max() >= len(class_names):
      raise UserError(f'{path} has label {labels.max()}, outside its {len(class_names)} classes')
    slices = [slice(i, i + SHARD_IMAGES) for i in range(0, len(images), SHARD_IMAGES)]
    shards[split] = [
      sources.Shard(
        sources.digest((images[s].tobytes(), labels[s].tobytes())),
        partial(_read_arrays, images[s], labels[s]),
      )
      for s in slices
    ]
  return sources.Source(class_names, splits['train'][0].shape[1:], shards)


def _read_arrays(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, np.ndarray, int]]:
  for i, (image, label) in enumerate(zip(images, labels.tolist())):
    yield str(i), image, label
