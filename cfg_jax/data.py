"""config → batches: the data set under Grain, whose position is one integer."""

from collections.abc import Sequence

import grain
import numpy as np

HELD_BYTES = 2**26  # smaller data sets are held in memory: a third of the time on the digits


class Batches:
  """Endless shuffled batches: x float32 (B, H, W, C) in [−1, 1] and c int32 (B,).

  source: of {'image': uint8 (H, W, C), 'label': int}, see `datasets`. B is batch_size over the
  number of JAX processes, each of which reads its own share. position: the number of images that
  came before, so that batch k of a run is the same whatever the number of processes, interrupted
  before it or not. flip: mirror each image with probability ½.
  """

  def __init__(
    self, source: Sequence[dict], *, batch_size: int, seed: int, flip: bool, position: int = 0
  ):
    """Starts to read ahead at the first `next`."""
    if len(source) * source[0]['image'].nbytes <= HELD_BYTES:
      source = [source[i] for i in range(len(source))]
    dataset = grain.MapDataset.source(source).seed(seed).map(_only_what_is_used).shuffle()
    dataset = dataset.repeat(None)
    self._iterator = iter(
      grain.experimental.ElasticIterator(
        dataset.random_map(_mirror) if flip else dataset,
        batch_size,
        grain.sharding.ShardByJaxProcess(),
        # Threads, not processes: they are enough to feed two cores that also compute.
        read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=8),  # of batches
      )
    )
    self._iterator.set_state({'global_next_index': position})

  def __iter__(self) -> 'Batches':
    """Itself."""
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    """The next batch."""
    batch = next(self._iterator)
    return {
      'x': batch['image'].astype(np.float32) / 127.5 - 1,
      'c': batch['label'].astype(np.int32),
    }

  def close(self) -> None:
    """Stops reading ahead."""
    self._iterator.close()


def _only_what_is_used(example: dict) -> dict:
  return {'image': example['image'], 'label': example['label']}


def _mirror(example: dict, rng: np.random.Generator) -> dict:
  return {**example, 'image': example['image'][:, :: rng.choice((-1, 1))]}
