"""config → batches: the data set under Grain, whose position is one integer."""

from pathlib import Path

import grain
import jax
import numpy as np

from cfg_jax import datasets


def batches(
  name: str, data_dir: Path, *, split: str, batch_size: int, seed: int, flip: bool, start: int = 0
) -> grain.DatasetIterator:
  """Endless shuffled batches: x float32 (B, H, W, C) in [−1, 1] and c int32 (B,).

  B is batch_size over the number of JAX processes, of which each reads its share. `start` is the
  number of images that came before: batch k of a run is the same whatever the process count, and
  whether the run was interrupted before it or not. flip: mirror each image with probability ½.
  """
  source = datasets.DATASETS[name].open(Path(data_dir).expanduser(), split)
  dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)
  dataset = dataset.random_map(_flip if flip else _as_is)
  iterator = iter(
    grain.experimental.ElasticIterator(
      dataset,
      batch_size,
      grain.sharding.ShardByJaxProcess(),
      # Two threads, no worker processes: enough to feed two cores that also compute.
      read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=4 * batch_size),
    )
  )
  iterator.set_state({'global_next_index': start})
  return iterator
