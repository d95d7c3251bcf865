"""Where images to prepare come from: a tar of a tar for each class, a tar of images, class folders.

A source is listed before any image is read, so that what is missing shows in seconds, and cut into
shards: recipes that any process can carry out, alone and in any order.
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cfg_jax.core.errors import UserError
from cfg_jax.data.prepare import images

MAX_SHARDS = 256  # each is a file a reader holds open; a usual limit is 1024 files
SHARD_BYTES = 64 << 20  # of source, a few hundred photographs at most
FILE_BYTES = 64 << 10  # a file costs what its bytes do, and resizing, about as much as 64 KiB more


class Entry(NamedTuple):
  """A file of the source: `size` bytes at `offset` of the file at `path`."""

  path: str
  offset: int
  size: int
  name: str
  label: int


class Shard(NamedTuple):
  """A recipe for one shard: `read()` yields (name, encoded image or uint8 (H, W, C), label).

  `key` is a digest of what there is to read, so that a shard done is not done again.
  """

  key: str
  read: Callable[[], Iterator[tuple[str, bytes | np.ndarray, int]]]


class Source(NamedTuple):
  """What is to be prepared: shards by split, and the number of images each split should have."""

  class_names: list[str]
  image_shape: tuple[int, int, int]
  shards: dict[str, list[Shard]]
  expected: dict[str, int] = {}
  upright: bool = True  # turn photographs as their EXIF data says


def tar_entries(path: Path, start: int = 0, end: int | None = None) -> Iterator[Entry]:
  """The regular files of the uncompressed tar that lies at [start, end) of the file at `path`.

  Labels are −1. Raises ValueError where the tar ends early or is none.
  """
  end = path.stat().st_size if end is None else end
  try:
    with path.open('rb') as file:
      file.seek(start)
      with tarfile.open(fileobj=file, mode='r:') as tar:
        for member in tar:
          if member.offset_data + member.size > end:
            raise tarfile.ReadError(f'{member.name} is cut')
          if member.isfile() and not (name := Path(member.name).name).startswith('.'):
            yield Entry(str(path), member.offset_data, member.size, name, -1)
  except tarfile.TarError as error:
    raise UserError(
      f'{path} ends early or is not an uncompressed tar ({error}): fetch it again'
    ) from None


def folder_entries(path: Path) -> Iterator[tuple[str, list[Entry]]]:
  """For each class folder of `path`, in the order of their names: its name and its files.

  Files are found at any depth, links followed, hidden ones passed over. Labels are −1.
  """
  for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith('.')):
    files = sorted(p for p in folder.rglob('*') if p.is_file() and not p.name.startswith('.'))
    names = [str(p.relative_to(path)) for p in files]
    yield folder.name, [Entry(str(p), 0, p.stat().st_size, n, -1) for p, n in zip(files, names)]


def folder_source(path: Path, split: str, size: int, rgb: bool = False) -> Source:
  """One's own images: a folder of class folders, labelled in the order of the folders' names.

  They become (size, size, 1) where all of them are grey, unless rgb; else (size, size, 3).
  """
  if not path.is_dir():
    raise UserError(f'--source={path} is not a folder of class folders')
  found = dict(folder_entries(path))
  if len(found) < 2:
    raise UserError(
      f'{path} holds {len(found)} class folders ({", ".join(found)}): '
      'a class-conditional model needs at least two'
    )
  if empty := [name for name, entries in found.items() if not entries]:
    raise UserError(f'{path / empty[0]} holds no images: fill the class folder or remove it')
  labelled = [e._replace(label=i) for i, entries in enumerate(found.values()) for e in entries]
  grey = not rgb and all(images.is_grey(Path(entry.path)) for entry in labelled)
  return Source(list(found), (size, size, 1 if grey else 3), {split: shards(labelled)})


def shards(entries: Sequence[Entry], *, of_tars: bool = False) -> list[Shard]:
  """Consecutive entries, images or (`of_tars`) tars of images, in shards of about equal work."""
  total = sum(entry.size + FILE_BYTES for entry in entries)
  num_shards = max(1, min(MAX_SHARDS, total // SHARD_BYTES))
  groups: list[list[Entry]] = [[] for _ in range(num_shards)]
  before = 0
  for entry in entries:
    groups[num_shards * before // total].append(entry)
    before += entry.size + FILE_BYTES
  read = _read_tars if of_tars else _read_images
  return [
    Shard(digest([entry[2:] for entry in group]), partial(read, group)) for group in groups if group
  ]


def digest(content: object) -> str:
  """Sixteen hex digits that stand for `content` (by its repr)."""
  return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _read_images(entries: Sequence[Entry]) -> Iterator[tuple[str, bytes, int]]:
  for entry in entries:
    with open(entry.path, 'rb') as file:
      yield entry.name, _read(file, entry), entry.label


def _read_tars(entries: Sequence[Entry]) -> Iterator[tuple[str, bytes, int]]:
  for tar in entries:
    with open(tar.path, 'rb') as file:
      for entry in tar_entries(Path(tar.path), tar.offset, tar.offset + tar.size):
        yield f'{tar.name}/{entry.name}', _read(file, entry), tar.label


def _read(file: BinaryIO, entry: Entry) -> bytes:
  file.seek(entry.offset)
  return file.read(entry.size)
