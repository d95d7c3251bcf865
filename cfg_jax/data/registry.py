"""The data sets, by name: what a config calls `data.name`.

A `Dataset` says what a model must know before any file is opened, and opens the files as a
random-access source of {'image': uint8 (H, W, C), 'label': int, ...}. `DATASETS` holds those known
by name; `get` also finds a user's own, once `python -m cfg_jax.data.prepare` has put them into
the data directory. Neither preparing nor reading needs TensorFlow.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import ml_collections
import numpy as np

from cfg_jax.core import config as config_lib
from cfg_jax.core import fields, files
from cfg_jax.core.config import Context, Problems
from cfg_jax.core.errors import UserError
from cfg_jax.core.fields import Field
from cfg_jax.data import prepared
from cfg_jax.data.prepared import fingerprint

__all__ = ['DATASETS', 'Dataset', 'fingerprint', 'get']


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One data set: image shape (H, W, C), how many classes and training images, how it is opened.

  `open(data_dir, split)` returns a random-access source; it builds the files where that is cheap,
  and otherwise raises ValueError with one line that says how to prepare them.
  """

  image_shape: tuple[int, int, int]
  num_classes: int
  num_train: int
  open: Callable[[Path, str], Sequence[dict]]
  grey: tuple[int, ...] = ()  # the bytes that occur, increasing, where they are not all 256

  @property
  def level_counts(self) -> tuple[int, ...]:
    """How many levels its pixels have: of those that occur, or of a byte."""
    return (len(self.grey), 256) if self.grey else (256,)

  def level_values(self, count: int | None = None) -> np.ndarray:
    """The values of x at its levels, of `level_counts`, the least by default: float32 (count,)."""
    count = count or self.level_counts[0]
    grey = self.grey if count == len(self.grey) else range(256)
    return np.float32(grey) / 127.5 - 1  # as `batches.to_x`


def _on_disk(
  name: str, image_shape: tuple[int, int, int], num_classes: int, num_train: int
) -> Dataset:
  return Dataset(image_shape, num_classes, num_train, partial(prepared.open_source, name))


def _digits(data_dir: Path, split: str) -> Sequence[dict]:
  from cfg_jax.data import digits  # here: it imports TFDS, for which not every command waits

  return digits.open_source(data_dir, split)


DATASETS: dict[str, Dataset] = {
  'digits': Dataset((8, 8, 1), 10, 1797, _digits, tuple(round(k * 255 / 16) for k in range(17))),
  'mnist': _on_disk('mnist', (28, 28, 1), 10, 60_000),
  'fashion_mnist': _on_disk('fashion_mnist', (28, 28, 1), 10, 60_000),
  'cifar10': _on_disk('cifar10', (32, 32, 3), 10, 50_000),
  'imagenet32': _on_disk('imagenet32', (32, 32, 3), 1000, 1_281_167),
  'imagenet64': _on_disk('imagenet64', (64, 64, 3), 1000, 1_281_167),
  'imagenet128': _on_disk('imagenet128', (128, 128, 3), 1000, 1_281_167),
  'imagenet256': _on_disk('imagenet256', (256, 256, 3), 1000, 1_281_167),
}


def get(name: str, data_dir: Path) -> Dataset:
  """The data set called `name`: one of `DATASETS`, or the user's own, prepared in `data_dir`.

  Raises ValueError where it is neither.
  """
  if name in DATASETS:
    return DATASETS[name]
  if not (re.fullmatch('[a-z][a-z0-9_]*', name) and (Path(data_dir) / name).is_dir()):
    raise UserError(
      f'data.name={name!r} is none of {", ".join(DATASETS)}, and nothing of that name is prepared '
      f'in {data_dir}: see python -m cfg_jax.data.prepare --help'
    )
  info = prepared.builder(name, data_dir).info
  image, label = info.features['image'], info.features['label']
  return _on_disk(name, image.shape, label.num_classes, info.splits['train'].num_examples)


def of(data: ml_collections.ConfigDict) -> Dataset:
  """The data set of a config's section `data`; UserError where there is none of that name."""
  return get(data.name, files.expand(data.dir))


def find(data: ml_collections.ConfigDict) -> Dataset | None:
  """`of`, or None where there is none."""
  try:
    return of(data)
  except UserError:
    return None


def open_source(data: ml_collections.ConfigDict, split: str = 'train') -> Sequence[dict]:
  """The images of a config's section `data`; UserError where they are not prepared.

  Those of `train` are without the ones that data.held_out keeps out of training.
  """
  source, k = of(data).open(files.expand(data.dir), split), data.get('held_out', 0)
  if not k or split != 'train':
    return source
  return prepared.Part(source, [i for i in range(len(source)) if i % k], f'without every {k}th')


def open_held_out(data: ml_collections.ConfigDict) -> tuple[str, Sequence[dict]]:
  """(what they are called, images that training has not seen): of `train`, or of another split.

  data.held_out=k keeps images 0, k, 2k, … out of training: prepared data lie class by class, so
  that each class gives its share. With 0 it is `validation` or `test`, whichever is prepared.
  UserError where there is none.
  """
  if k := data.get('held_out', 0):
    source = of(data).open(files.expand(data.dir), 'train')
    return f'train, every {k}th', prepared.Part(source, range(0, len(source), k), f'every {k}th')
  info = open_source(data).dataset_info
  for split in ('validation', 'test'):
    if split in info.splits:
      return split, open_source(data, split)
  raise UserError(
    f'data.held_out=0, and {data.name} has neither `validation` nor `test`: nothing is kept out of '
    'training. Train with --set data.held_out=5 to keep every fifth image out, or prepare another '
    'split.'
  )


# Fields that configs may leave out; crop: see `batches`.
config_lib.OPTIONAL |= {'data.held_out': 0, 'data.crop': False}
FIELDS = {
  'name': Field(str),
  'dir': Field(str),
  'flip': Field(bool),
  'crop': Field(bool, may_lack=True),
  'held_out': Field(int, 0, 10**9, may_lack=True),
}


def problems(data: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `data`: (field, remedy)."""
  del context
  wrong = list(fields.problems(data, FIELDS))
  yield from wrong
  if wrong:
    return
  if data.get('held_out') == 1:
    yield 'held_out', 'keeps every image out of training: use 0 for none, or 2 and more'
  try:
    of(data)
  except UserError as error:
    text = str(error).rstrip('.')
    yield 'name', text.partition(f'={data.name!r} ')[2] or f'cannot be used: {text}'
