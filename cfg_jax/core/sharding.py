"""Placement, stated once: one `data` axis over all devices of all processes.

`jax.jit` with these shardings is today's pmap: the same step runs on one core and on many hosts. Of
the whole step only the gradient is written for one device, see `mean_over_devices`.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SMALL = 1 << 18  # elements: gradients with fewer are sent together
WIDE = 128  # channels of a network's first level
# XLA for a CPU: convolutions by Eigen, which with one device takes a quarter off ADM-64's gradient;
# operations one after another, without which remat saves no memory.
WIDE_FLAGS = (
  '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution '
  '--xla_cpu_enable_concurrency_optimized_scheduler=false'
)


def setup_jax(*batch_sizes: int, channels: int = 0) -> None:
  """What every command sets before JAX's first use: a cache of programs, devices and memory.

  channels: of the network that will run, if one will. The rest matters only where JAX finds nothing
  better than a CPU. For a narrow network one JAX device a core, as many as divide all batch sizes,
  doubles the speed of small convolutions on two cores; for a wide one, one device and `WIDE_FLAGS`.
  JAX_NUM_CPU_DEVICES, JAX_COMPILATION_CACHE_DIR and what is in XLA_FLAGS, where set, stand.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    cache = Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser() / 'cfg_jax' / 'xla'
    jax.config.update('jax_compilation_cache_dir', str(cache))
  wide = channels >= WIDE
  if wide:
    os.environ['XLA_FLAGS'] = f'{WIDE_FLAGS} {os.environ.get("XLA_FLAGS", "")}'.strip()
  if 'JAX_NUM_CPU_DEVICES' not in os.environ:
    affinity = getattr(os, 'sched_getaffinity', None)  # Linux only
    cores = 1 if wide else len(affinity(0)) if affinity else os.cpu_count()
    fit = max(n for n in range(1, cores + 1) if all(size % n == 0 for size in batch_sizes))
    jax.config.update('jax_num_cpu_devices', fit)
  _keep_freed_memory(wide)


def _keep_freed_memory(wide: bool) -> None:
  """Tells glibc to return no memory to the system.

  XLA on a CPU allocates its working memory anew at every call. Above 32 MB glibc would map it and
  unmap it each time, and the system clear every page: a tenth of a training step.
  """
  if sys.platform == 'linux' and hasattr(libc := ctypes.CDLL(None), 'mallopt'):
    m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8  # malloc.h
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, -1)  # never
    libc.mallopt(m_top_pad, 1 << 26)  # a thread's heap is 64 MB: it too is kept when it empties
    if wide:
      libc.mallopt(m_arena_max, 1)  # what does not fit into a thread's heap would be mapped again


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
  """The devices, by default all of all processes, on one axis, `data`."""
  devices = jax.devices() if devices is None else devices
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


def mean_over_devices(gradient: Callable, mesh: Mesh) -> Callable:
  """The same function, with each device computing its own samples' part.

  gradient: (params, *samples) → (mean gradient, losses (B,)), the samples being trees of arrays
  (B, …). One mean over the devices is taken at the end, also where `gradient` goes through
  microbatches, and one for all small arrays: on CPUs each costs 0.2 ms, together a sixth of the
  digits' step. The compiler would take one for each array and microbatch.
  """
  if mesh.size == 1:
    return gradient

  def of_one_device(params, samples):
    grads, losses = gradient(params, *samples)
    leaves, structure = jax.tree.flatten(grads)
    large = {i: x for i, x in enumerate(leaves) if x.size >= SMALL}
    joined, separate = ravel_pytree({i: x for i, x in enumerate(leaves) if i not in large})
    joined, large = jax.lax.pmean((joined, large), 'data')
    means = separate(joined) | large
    return jax.tree.unflatten(structure, [means[i] for i in range(len(leaves))]), losses

  whole, split = PartitionSpec(), PartitionSpec('data')
  of_all = jax.shard_map(
    of_one_device,
    mesh=mesh,
    in_specs=(whole, split),
    out_specs=(whole, split),
    check_vma=False,  # else JAX takes the mean of each array by itself
  )
  return lambda params, *samples: of_all(params, samples)


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
