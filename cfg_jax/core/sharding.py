"""Placement, stated once: one `data` axis over all devices of all processes.

`jax.jit` with these shardings is today's pmap: the same step runs on one core and on many hosts. Of
the whole step only the gradient is written for one device, see `mean_over_devices`.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SMALL = 1 << 18  # elements: gradients with fewer are sent together


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
  """The axis of an array that `zero1` splits: the largest that the devices divide."""
  fits = [axis for axis, size in enumerate(shape) if size % num_devices == 0]
  return max(fits, key=lambda axis: shape[axis], default=None)


def zero1(tree: Any, mesh: Mesh) -> Any:
  """A sharding for each array of a tree: a part on every device, or all of it where none divides.

  So the first stage of ZeRO places the optimizer's state (Rajbhandari et al. 2020).
  """

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

  gradient: (params, *samples) → (mean gradient, losses (B,) or a tree of such), the samples being
  trees of arrays (B, …). One mean over the devices is taken at the end, also where `gradient` goes
  through microbatches, and one for all small arrays: on CPUs each costs 0.2 ms, together a sixth of
  the digits' step. The compiler would take one for each array and microbatch.
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


def gather(x: jax.Array | np.ndarray) -> np.ndarray:
  """All of an array, however it is sharded; of several processes, all must call this."""
  if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x)
  return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def place(x: np.ndarray, placement: NamedSharding) -> jax.Array:
  """An array that every process has the whole of, placed as said."""
  return jax.make_array_from_callback(x.shape, placement, lambda index: x[index])
