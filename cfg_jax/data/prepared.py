"""Data sets prepared on disk as TFDS lays them out: DATA_DIR/NAME/VERSION/, in ArrayRecord files.

Who wrote them does not matter: `cfg_jax.data.prepare`, or TFDS itself, as in
`tfds.builder('mnist', data_dir='data', file_format='array_record').download_and_prepare()`, which
needs TensorFlow (the extra `prepare`). Reading never does.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cfg_jax.core.errors import UserError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds


def builder(name: str, data_dir: Path) -> 'tfds.core.DatasetBuilder':
  """The newest prepared version of `name`; UserError with the remedy where there is none."""
  import tensorflow_datasets as tfds  # here: a second, which only those who read data wait for

  tfds.disable_progress_bar()  # its bars reach into logs, where they are noise
  whole = Path(data_dir).glob(f'{name}/*.*.*/dataset_info.json')  # the file written last
  if not (versions := sorted(tfds.core.Version(path.parent.name) for path in whole)):
    raise UserError(
      f'data.name={name!r} is not prepared in {data_dir}: '
      f'run python -m cfg_jax.data.prepare {name} --data_dir {data_dir} --source ...'
    )
  return tfds.builder_from_directory(Path(data_dir) / name / str(versions[-1]))


def open_source(name: str, data_dir: Path, split: str) -> Sequence[dict]:
  """A random-access source of {'image': uint8 (H, W, C), 'label': int, ...}."""
  prepared = builder(name, data_dir)
  try:
    return prepared.as_data_source(split=split)
  except NotImplementedError:
    raise UserError(
      f'{prepared.data_path} is not in the ArrayRecord format: '
      f"prepare {name} again with TFDS's file_format='array_record'"
    ) from None


def fingerprint(source: Sequence[dict]) -> str:
  """The identity of an opened source, 16 hex digits: the same for the same data in the same order.

  A digest of the data set's name and version, its features and class names, and for each shard
  its file's name and size and the records read from it. It costs one `stat` per shard, so it can
  be compared on every resume. It does not depend on where the files lie. It does not see bytes
  changed in place: ArrayRecord's own checksums catch those when they are read.
  """
  info = source.dataset_info
  shards = [
    (Path(f.filename).name, os.path.getsize(f.filename), f.examples_in_shard, f.skip, f.take)
    for f in info.splits[source.split].file_instructions
  ]
  identity = [info.full_name, info.features.to_json(), info.features['label'].names, shards]
  return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
