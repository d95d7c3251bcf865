"""Placement, stated once: one `data` axis over all devices of all processes.

`jax.jit` with these shardings is today's pmap: the same step runs on one core and on many hosts,
and takes no `pmean`, since the loss is the mean of the global batch.
"""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def setup_jax(*batch_sizes: int) -> None:
  """What every command sets before JAX's first use: a compilation cache, and CPU cores as devices.

  One JAX device a core, as many as divide all batch sizes, doubles the speed of small convolutions
  on two cores; it matters only where JAX finds nothing better than a CPU. JAX_NUM_CPU_DEVICES and
  JAX_COMPILATION_CACHE_DIR, where set, stand.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    cache = Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser() / 'cfg_jax' / 'xla'
    jax.config.update('jax_compilation_cache_dir', str(cache))
  if 'JAX_NUM_CPU_DEVICES' not in os.environ:
    affinity = getattr(os, 'sched_getaffinity', None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count()
    fit = max(n for n in range(1, cores + 1) if all(size % n == 0 for size in batch_sizes))
    jax.config.update('jax_num_cpu_devices', fit)


def data_mesh() -> Mesh:
  """All devices on one axis, `data`."""
  return jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))


def local_mesh() -> Mesh:
  """This process's own devices on one axis, for work that processes do side by side."""
  devices = jax.local_devices()
  return jax.make_mesh((len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole value on every device: parameters, EMA, optimizer state."""
  return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh) -> NamedSharding:
  """The leading axis split over the devices."""
  return NamedSharding(mesh, PartitionSpec('data'))


def split_axis(shape: tuple[int, ...], num_devices: int) -> int | None:
  """The axis of an array that is split to share it out: the largest that the devices divide."""
  fits = [axis for axis, size in enumerate(shape) if size % num_devices == 0]
  return max(fits, key=lambda axis: shape[axis], default=None)


def shared_out(tree: Any, mesh: Mesh) -> Any:
  """A sharding for each array of a tree: a part on every device; the whole where none fits."""

  def placement(x):
    axis = split_axis(x.shape, mesh.size)
    if axis is None:
      return replicated(mesh)
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'data'))

  return jax.tree.map(placement, tree)


def abstract(tree: Any, placement: Any) -> Any:
  """The shapes and dtypes of a tree, placed: what a checkpoint restores into.

  placement: a sharding for all arrays, or a tree of one for each.
  """
  if isinstance(placement, NamedSharding):
    placement = jax.tree.map(lambda x: placement, tree)
  return jax.tree.map(
    lambda x, p: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=p), tree, placement
  )


def rows(placement: NamedSharding, batch_size: int) -> np.ndarray:
  """Which rows of a global batch lie on this process's devices, in increasing order."""
  of_devices = placement.addressable_devices_indices_map((batch_size,)).values()
  return np.unique(np.concatenate([np.arange(batch_size)[index] for index in of_devices]))


def from_rows(tree: Any, placement: NamedSharding) -> Any:
  """The global batch, from each process's own rows of it."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(placement, np.asarray(x)), tree
  )


def whole(x: jax.Array | np.ndarray) -> np.ndarray:
  """All of an array, however it is sharded; of several processes, all must call this."""
  if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x)
  return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def from_whole(x: np.ndarray, placement: NamedSharding) -> jax.Array:
  """An array that every process has the whole of, placed as said."""
  return jax.make_array_from_callback(x.shape, placement, lambda index: x[index])
