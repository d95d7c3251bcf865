"""Placement, stated once: one `data` axis over all devices of all processes.

`jax.jit` with these shardings is today's pmap: the same step runs on one core and on many hosts, and
takes no `pmean`, since the loss is the mean of the global batch.
"""

import os

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def use_cpu_cores(*batch_sizes: int) -> None:
  """One JAX device a CPU core, as many as divide all batch sizes. Call before JAX's first use.

  It doubles the speed of small convolutions on two cores. Without effect where JAX_NUM_CPU_DEVICES is
  set, or where JAX computes on something better than a CPU.
  """
  if 'JAX_NUM_CPU_DEVICES' in os.environ:
    return
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  fit = max(n for n in range(1, cores + 1) if all(size % n == 0 for size in batch_sizes))
  jax.config.update('jax_num_cpu_devices', fit)


def data_mesh() -> Mesh:
  """All devices on one axis, `data`."""
  return jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole value on every device: parameters, EMA, optimizer state."""
  return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh) -> NamedSharding:
  """The leading axis split over the devices."""
  return NamedSharding(mesh, PartitionSpec('data'))
