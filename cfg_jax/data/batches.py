"""config → batches: the data set under Grain, whose position is one integer."""

import functools
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np
from PIL import Image

from cfg_jax.equations.conditioning import Cond

HELD_BYTES = 2**26  # smaller data sets are held in memory: a third of the time on the digits


class Batch(NamedTuple):
  """B images with their conditions."""

  x: np.ndarray  # float32 (B, H, W, C) in [−1, 1]
  cond: Cond


class Batches:
  """Endless shuffled batches, whose condition is the class, int32 (B,).

  source: of {'image': uint8 (H, W, C), 'label': int}, see `datasets`. rows: which rows of a global
  batch of batch_size are read here, B of them (all by default): each process reads its own, so that
  batch k of a run is the same, and in the same order, whatever the number of processes. position:
  the number of images that came before, so that batch k is the same too whether the run was
  interrupted before it or not. crop: cut a random window out of each image, enlarged: see
  `random_crop`. flip: mirror each with probability ½.
  """

  def __init__(
    self,
    source: Sequence[dict],
    *,
    batch_size: int,
    seed: int,
    flip: bool,
    crop: bool = False,
    position: int = 0,
    rows: Sequence[int] | None = None,
  ):
    """Starts to read ahead at the first `next`."""
    if len(source) * source[0]['image'].nbytes <= HELD_BYTES:
      source = [source[i] for i in range(len(source))]
    dataset = grain.MapDataset.source(source).seed(seed).map(_only_what_is_used).shuffle()
    dataset = dataset.repeat(None)
    if flip or crop:
      dataset = dataset.random_map(functools.partial(_changed, crop=crop, flip=flip))
    rows = range(batch_size) if rows is None else rows
    self._iterator = iter(
      grain.experimental.ElasticIterator(
        grain.MapDataset.source(_Rows(dataset, position, batch_size, rows)),
        batch_size,
        grain.sharding.ShardOptions(shard_index=0, shard_count=batch_size // len(rows)),
        # Threads, not processes: they are enough to feed two cores that also compute.
        read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=8),  # of batches
      )
    )
    self._iterator.set_state({'global_next_index': position})

  def __iter__(self) -> 'Batches':
    """Itself."""
    return self

  def __next__(self) -> Batch:
    """The next batch."""
    batch = next(self._iterator)
    return _batch(batch['image'], batch['label'])

  def close(self) -> None:
    """Stops reading ahead."""
    self._iterator.close()


def of_examples(examples: Sequence[dict]) -> Batch:
  """The batch of some examples {'image': uint8 (H, W, C), 'label': int}."""
  images, labels = (np.stack([example[k] for example in examples]) for k in ('image', 'label'))
  return _batch(images, labels)


def _batch(images: np.ndarray, labels: np.ndarray) -> Batch:
  return Batch(to_x(images), Cond(labels.astype(np.int32), np.ones(len(labels), bool)))


def to_x(images: np.ndarray) -> np.ndarray:
  """Grey levels, uint8, as x: float32 in [−1, 1]."""
  return images.astype(np.float32) / 127.5 - 1


class _Rows:
  """A data set as ElasticIterator is to see it, which reads every shard_count-th image of a batch.

  It is to read the rows that lie on the process's devices: so the noise that training draws for a
  row meets the same image whatever the number of processes.
  """

  def __init__(self, dataset, position: int, batch_size: int, rows: Sequence[int]):
    self._dataset, self._position, self._batch_size = dataset, position, batch_size
    self._rows = [int(row) for row in rows]

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, i: int) -> dict:
    r = (i - self._position) % self._batch_size
    return self._dataset[i - r + self._rows[r * len(self._rows) // self._batch_size]]


def _only_what_is_used(example: dict) -> dict:
  return {'image': example['image'], 'label': example['label']}


def _changed(example: dict, rng: np.random.Generator, crop: bool, flip: bool) -> dict:
  image = random_crop(example['image'], rng) if crop else example['image']
  return {**example, 'image': image[:, :: rng.choice((-1, 1))] if flip else image}


def random_crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """A window of uint8 (H, W, C) out of the image, enlarged by 1 to 1.25: as ADM trains classifiers.

  The shorter side n becomes a whole number from n to ⌈n/0.8⌉, all equally likely, by Pillow's
  bicubic filter, and the window lies anywhere. ADM does the same with the original photograph, of
  which it shrinks the shorter side to that number: its window may reach beyond the central square,
  which is all that a prepared image has, and it loses no detail to the enlargement.
  """
  height, width, channels = image.shape
  short = min(height, width)
  side = rng.integers(short, math.ceil(short / 0.8), endpoint=True)
  size = round(width * side / short), round(height * side / short)
  planes = image[..., 0] if channels == 1 else image
  large = np.asarray(Image.fromarray(planes).resize(size, Image.Resampling.BICUBIC))
  top, left = (rng.integers(0, a - b, endpoint=True) for a, b in zip(large.shape, image.shape[:2]))
  return large[top : top + height, left : left + width].reshape(image.shape)
