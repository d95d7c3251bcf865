"""Data sets prepared on disk as TFDS lays them out: DATA_DIR/NAME/VERSION/, in ArrayRecord files.

Who wrote them does not matter: `cfg_jax.data.prepare`, or TFDS itself, as in
`tfds.builder('mnist', data_dir='data', file_format='array_record').download_and_prepare()`, which
needs TensorFlow (the extra `prepare`). Reading never does.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cfg_jax.core import files
from cfg_jax.core.errors import UserError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds


DIGESTS = 'digests.json'  # of the files of a data set that say what its records are
METADATA = ('dataset_info.json', 'features.json', 'label.labels.txt')


class Source:
  """A random-access source of TFDS, whose damage is told as a UserError that names its folder."""

  def __init__(self, opened: Sequence[dict], folder: Path):
    """opened: of `as_data_source`."""
    self._opened, self._folder = opened, folder
    self.dataset_info, self.split = opened.dataset_info, opened.split
    with self._told():
      len(opened)

  def __len__(self) -> int:
    """How many images there are."""
    return len(self._opened)

  def __getitem__(self, i: int) -> dict:
    """Image i, with its label."""
    with self._told():
      return self._opened[i]

  def __getitems__(self, indices: Sequence[int]) -> list[dict]:
    """Several."""
    with self._told():
      return self._opened.__getitems__(indices)

  @contextlib.contextmanager
  def _told(self):
    try:
      yield
    except Exception as error:  # whatever damaged bytes make of ArrayRecord, protobuf and Pillow
      raise UserError(_damaged(self._folder, error)) from error


class Part:
  """Some of a source's images, by their indices; `name` says which, and is in the fingerprint."""

  def __init__(self, source: Source, indices: Sequence[int], name: str):
    """source: the whole."""
    self._source, self._indices, self.part = source, indices, name
    self.dataset_info, self.split = source.dataset_info, source.split

  def __len__(self) -> int:
    """How many images there are."""
    return len(self._indices)

  def __getitem__(self, i: int) -> dict:
    """Image i of these, with its label."""
    return self._source[self._indices[i]]

  def __getitems__(self, indices: Sequence[int]) -> list[dict]:
    """Several."""
    return self._source.__getitems__([self._indices[i] for i in indices])


def _damaged(folder, error):
  text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
  return f'the data set in {folder} is damaged ({text}): remove that folder and prepare it again.'


def seal(folder: Path, new: Path | None = None) -> None:
  """Writes digests.json for the metadata in folder, and for those in `new` that replace them."""
  digests = {}
  for path in (p / name for p in (folder, new) if p for name in METADATA):
    if path.exists():
      digests.setdefault(path.name, []).append(hashlib.sha256(path.read_bytes()).hexdigest())
  files.write_json(folder / DIGESTS, files.seal(digests))


def check_seal(folder: Path) -> None:
  """Raises UserError where a file of metadata in folder is not one that was written there.

  Folders without digests.json are TFDS's own, or older: of them only what records say is compared.
  """
  if not (folder / DIGESTS).exists():
    return
  try:
    digests = files.unseal(files.read_json(folder / DIGESTS), must=True)
    for name, known in digests.items():
      path = folder / name
      if not path.exists():
        raise ValueError(f'{name} is missing')
      if hashlib.sha256(path.read_bytes()).hexdigest() not in known:
        raise ValueError(f'{name} is not the one that was written')
  except (ValueError, AttributeError, TypeError) as error:
    raise UserError(_damaged(folder, error)) from None


def builder(name: str, data_dir: Path) -> 'tfds.core.DatasetBuilder':
  """The newest prepared version of `name`; UserError with the remedy where there is none."""
  import tensorflow_datasets as tfds  # here: a second, which only those who read data wait for

  tfds.disable_progress_bar()  # its bars reach into logs, where they are noise
  whole = Path(data_dir).glob(f'{name}/*.*.*/dataset_info.json')  # the file written last
  named = [path.parent.name for path in whole if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)]
  if not (versions := sorted(map(tfds.core.Version, named))):
    raise UserError(
      f'data.name={name!r} is not prepared in {data_dir}: '
      f'run python -m cfg_jax.data.prepare {name} --data_dir {data_dir} --source ...'
    )
  folder = Path(data_dir) / name / str(versions[-1])
  check_seal(folder)
  try:
    return tfds.builder_from_directory(folder)
  except Exception as error:  # whatever damaged JSON makes of TFDS
    raise UserError(_damaged(folder, error)) from error


def open_source(name: str, data_dir: Path, split: str) -> Sequence[dict]:
  """A random-access source of {'image': uint8 (H, W, C), 'label': int, ...}."""
  return open_builder(builder(name, data_dir), name, split)


def open_builder(prepared: 'tfds.core.DatasetBuilder', name: str, split: str) -> Source:
  """The same, of a builder that is prepared."""
  try:
    return Source(prepared.as_data_source(split=split), Path(prepared.data_path))
  except NotImplementedError:
    raise UserError(
      f'{prepared.data_path} is not in the ArrayRecord format: '
      f"prepare {name} again with TFDS's file_format='array_record'"
    ) from None
  except UserError:
    raise
  except Exception as error:  # a file that is missing, cut, or no ArrayRecord
    raise UserError(_damaged(prepared.data_path, error)) from error


def fingerprint(source: Sequence[dict]) -> str:
  """The identity of an opened source, 16 hex digits: the same for the same data in the same order.

  A digest of the data set's name and version, its features and class names, and for each shard
  its file's name and size and the records read from it. It costs one `stat` per shard, so it can
  be compared on every resume. It does not depend on where the files lie. It does not see bytes
  changed in place: ArrayRecord's own checksums catch those when they are read.
  """
  info = source.dataset_info
  try:
    shards = [
      (Path(f.filename).name, os.path.getsize(f.filename), f.examples_in_shard, f.skip, f.take)
      for f in info.splits[source.split].file_instructions
    ]
  except FileNotFoundError as error:
    raise UserError(_damaged(Path(error.filename).parent, error)) from None
  identity = [info.full_name, info.features.to_json(), info.features['label'].names, shards]
  identity += [source.part] if isinstance(source, Part) else []
  return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
