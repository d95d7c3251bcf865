"""What a network makes of each image of a data set, without samples, and a line of it, once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cfg_jax.core import evals, sharding
from cfg_jax.core.progress import Progress
from cfg_jax.data import batches

SEED = 0  # of the noise, of which an image has its own


def values(
  of_batch: Callable, params: dict, source: Any, which: np.ndarray, size: int, progress: Progress
) -> Any:
  """of_batch of the images `which` (N,) of source, on all devices: arrays (N, …), a tree of them.

  of_batch: (params, batch, keys (B,)) → such a tree of (B, …); size: B, at most. The key of an
  image depends on its index alone.
  """
  mesh = sharding.data_mesh()
  split, everywhere = sharding.batch(mesh), sharding.replicated(mesh)

  def keyed(params, batch, indices):
    key = jax.random.key(SEED)
    return of_batch(params, batch, jax.vmap(lambda i: jax.random.fold_in(key, i))(indices))

  compiled = jax.jit(keyed, in_shardings=(everywhere, split, split), out_shardings=split)
  size, parts = -(-min(size, len(which)) // mesh.size) * mesh.size, []
  for first in range(0, len(which), size):
    n = min(size, len(which) - first)
    indices = np.resize(which[first : first + n], size)  # the last batch is filled up
    batch = batches.of_examples(source.__getitems__(indices.tolist()))
    part = compiled(params, *jax.device_put((batch, indices.astype(np.int32)), split))
    parts.append(jax.tree.map(lambda a, n=n: np.asarray(a)[:n], part))
    progress.update(n)
  progress.done()
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def once(path: Path, settings: dict, measure: Callable[[], dict]) -> dict:
  """The line of path that has these settings, to which measure() is added if there is none."""
  settings = json.loads(json.dumps(settings))  # as they are read again
  lines = evals.read(path)
  for known in lines:
    if settings.items() <= known.items():
      return known
  lines.append(settings | measure())
  evals.write(path, lines)
  return lines[-1]
