"""The 1 797 handwritten digits of scikit-learn's wheel: 8×8, 17 grey levels (UCI's test set)."""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from cfg_jax.core import locks
from cfg_jax.data import prepared


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Grey levels 0..16, (N, 8, 8), to uint8 0..255, (N, 8, 8, 1)."""
  return np.round(images * (255 / 16)).astype(np.uint8)[..., None]


class CfgDigits(tfds.core.GeneratorBasedBuilder):
  """The digits as one TFDS split, `train`, in the order of scikit-learn."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
          'label': tfds.features.ClassLabel(num_classes=10),
        }
      ),
      description='Handwritten digits, 8x8, from scikit-learn.',
      homepage='https://archive.ics.uci.edu/dataset/80',
    )

  def _split_generators(self, dl_manager) -> dict:
    del dl_manager  # nothing is downloaded: the data is inside a wheel
    return {'train': self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict]]:
    from sklearn.datasets import load_digits  # here: it takes a second, and is needed once

    digits = load_digits()
    for i, (image, label) in enumerate(zip(to_uint8(digits.images), digits.target)):
      yield i, {'image': image, 'label': int(label)}


def open_source(data_dir: Path, split: str) -> Sequence[dict]:
  """The prepared digits as a random-access source; built on first use (a second)."""
  tfds.disable_progress_bar()  # its bars reach into logs, where they are noise
  folder = Path(data_dir) / CfgDigits.name / str(CfgDigits.VERSION)
  if not (folder / 'dataset_info.json').exists():
    with locks.claim(Path(data_dir) / f'{CfgDigits.name}.lock', seconds=math.inf):
      _build(data_dir, folder)
  prepared.check_seal(folder)
  return prepared.open_source(CfgDigits.name, data_dir, split)


def _build(data_dir, folder):
  """Unless another process has done it meanwhile."""
  builder = CfgDigits(data_dir=data_dir, file_format='array_record')
  if builder.is_prepared():
    return
  print(f'Preparing the digits in {folder}', flush=True)
  with (
    open(os.devnull, 'w') as null,
    contextlib.redirect_stdout(null),
  ):  # TFDS speaks of downloads
    builder.download_and_prepare()
  prepared.seal(folder)
