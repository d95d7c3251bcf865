"""The data sets, by name: what a config calls `data.name`.

A `Dataset` says what a model must know before any file is opened, and opens the files as a random-access
source of {'image': uint8 (H, W, C), 'label': int, ...}. Preparing never needs TensorFlow for the data
sets listed here: their TFDS builders are ours and write ArrayRecord.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from cfg_jax.datasets import digits


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One data set: image shape (H, W, C), number of classes and training images, and how it is opened.

  `open(data_dir, split)` returns a random-access source; it builds the files where that is cheap, and
  otherwise raises ValueError with one line that says how to prepare them.
  """

  image_shape: tuple[int, int, int]
  num_classes: int
  num_train: int
  open: Callable[[Path, str], Sequence[dict]]


DATASETS: dict[str, Dataset] = {
  'digits': Dataset((8, 8, 1), 10, 1797, digits.open_source),
}
