"""What a config takes on this very machine, from a few seconds of it: `--plan.device=here`.

The training step and one call of the network, as the sampler makes it, are compiled and timed on
all devices here, for as many images as take about a second; the rest is arithmetic. So start-up,
compilation, reading data and writing files are left out. Where the images are fewer than the
config's batch, the time is scaled to it, and is then an upper bound: the update of the weights,
once a batch, is counted too often.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core import state as train_state
from cfg_jax.data import registry
from cfg_jax.data.batches import Batch
from cfg_jax.equations import conditioning
from cfg_jax.generate.draw import images_at_once
from cfg_jax.plan.cost import ImageFlops

# FLOPs that are measured at least, about a second's worth; an accelerator's step is tried as it is.
CPU_FLOPS = 2e11
SECONDS = 1.0  # how long each is repeated


class Measured(NamedTuple):
  """Seconds of one training step and of one network call for one image, on all devices here."""

  step: float
  step_images: int  # of its batch that were timed
  call: float
  call_images: int


def load() -> float:
  """How many processes wanted a core in the last minute, on average; 0 where nobody says."""
  return os.getloadavg()[0] if hasattr(os, 'getloadavg') else 0.0


def measure(config: ml_collections.ConfigDict, flops: ImageFlops) -> Measured:
  """Compiles and times both. Takes the memory of training with the images that are timed."""
  mesh, batch_size = sharding.data_mesh(), config.train.batch_size
  n = _images(batch_size, flops.train.compiler, mesh.size)
  step = _step_seconds(config_lib.change(config, ['train.microbatches=1']), n, mesh)
  most = images_at_once(config.sample, mesh.size) if methods.draws(config) else batch_size
  m = _images(most, flops.forward.compiler, mesh.size)
  return Measured(step * batch_size / n, n, _call_seconds(config, m, mesh) / m, m)


def _images(most: int, flops_each: float, num_devices: int) -> int:
  """As many images as take a second, a multiple of the devices that divides `most`."""
  if jax.devices()[0].platform != 'cpu':
    return most
  fits = max(num_devices, CPU_FLOPS / flops_each)
  return max(n for n in range(num_devices, most + 1, num_devices) if most % n == 0 and n <= fits)


def _step_seconds(config, n, mesh):
  method, split = methods.make(config, mesh), sharding.batch(mesh)
  create = functools.partial(method.init, config.seed)
  placed = train_state.shardings(jax.eval_shape(create), mesh, config.train.shard_optimizer)
  state = jax.jit(create, out_shardings=placed)()
  everywhere = sharding.replicated(mesh)
  step = jax.jit(
    method.step,
    in_shardings=(placed, split, everywhere),
    out_shardings=(placed, everywhere),
    donate_argnums=0,
  )
  x, cond = _images_and_classes(config, n)
  batch = jax.device_put(Batch(x, cond), split)
  held = [state]

  def once():
    held[0], metrics = step(held[0], batch, method.settings)
    return metrics

  return seconds(once)


def _call_seconds(config, n, mesh):
  nets, split = methods.network(config), sharding.batch(mesh)
  network, everywhere = nets.of(config), sharding.replicated(mesh)
  params = jax.jit(lambda: nets.create_params(network, 0), out_shardings=everywhere)()
  x, *cond = _images_and_classes(config, n)
  inputs = jax.device_put((x, np.zeros(n, np.float32), *cond), split)
  inputs = inputs if methods.draws(config) else inputs[:2]
  call = jax.jit(nets.apply_fn(network))
  return seconds(functools.partial(call, params, *inputs))


def _images_and_classes(config, n):
  dataset = registry.of(config.data)
  x = np.random.default_rng(0).uniform(-1, 1, (n, *dataset.image_shape)).astype(np.float32)
  classes = jnp.asarray(np.arange(n, dtype=np.int32) % dataset.num_classes)
  return x, conditioning.given(classes)


def seconds(call: Callable) -> float:
  """The median time of a call, over a second of them and at least two; the first only compiles."""
  jax.block_until_ready(call())
  taken = []
  while len(taken) < 2 or sum(taken) < SECONDS:
    begin = time.perf_counter()
    jax.block_until_ready(call())
    taken.append(time.perf_counter() - begin)
  return float(np.median(taken))
