"""config → batches: the data set under Grain, whose position is one integer."""

from collections.abc import Sequence

import grain
import numpy as np


def batches(
  source: Sequence[dict], *, batch_size: int, seed: int, flip: bool, position: int = 0
) -> grain.DatasetIterator:
  """Endless shuffled batches: x float32 (B, H, W, C) in [−1, 1] and c int32 (B,).

  source: of {'image': uint8 (H, W, C), 'label': int}, see `datasets`. B is batch_size over the
  number of JAX processes, each of which reads its own share. position: the number of images that
  came before, so that batch k of a run is the same whatever the number of processes, interrupted
  before it or not. flip: mirror each image with probability ½.
  """
  dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)
  dataset = dataset.random_map(_mirror) if flip else dataset
  iterator = iter(
    grain.experimental.ElasticIterator(
      dataset.map(_to_model),
      batch_size,
      grain.sharding.ShardByJaxProcess(),
      # Threads, not processes: they are enough to feed two cores that also compute.
      read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=4 * batch_size),
    )
  )
  iterator.set_state({'global_next_index': position})
  return iterator


def _mirror(example: dict, rng: np.random.Generator) -> dict:
  return {**example, 'image': example['image'][:, :: rng.choice((-1, 1))]}


def _to_model(example: dict) -> dict:
  return {
    'x': example['image'].astype(np.float32) / 127.5 - 1,
    'c': np.int32(example['label']),
  }
