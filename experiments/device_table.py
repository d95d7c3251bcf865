"""What this device does with the digits', CIFAR-10's and ADM's 64×64 network, one line a program.

For `experiments.benchmark`. A training step counts three forwards. Memory is the compiled program's
on one device: arguments, results and working memory. The loader's wait is its share of the time of
steps that are fed by `data.Batches`, one batch in flight, as `train` feeds them.
"""

import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import config_file, sharding
from cfg_jax.data import registry
from cfg_jax.data.batches import Batch, Batches
from cfg_jax.equations import conditioning
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.methods import drawing
from cfg_jax.nets import unet
from cfg_jax.plan import devices
from cfg_jax.plan import flops as costs

PER_DEVICE = {'digits': 1024, 'cifar10': 256, 'imagenet64': 64}  # images at once
NUM_STEPS = 8  # of the sampler: its rate of images is that at 8 steps, its FLOP/s are any T's
SECONDS = 3.0  # each program is timed for so long, and at least three times


class Row(NamedTuple):
  """One program. None where it can't be known here."""

  what: str
  batch_size: int
  seconds: float  # of one call
  flops: float  # of one call
  memory: int  # bytes
  loader_wait: float | None = None


def on_accelerator(name: str) -> ml_collections.ConfigDict:
  """configs/<name>.py in bfloat16, with batches for the devices here and a short sampler."""
  config = config_file.read(f'configs/{name}.py')
  size = PER_DEVICE[name] * jax.device_count()
  return config_lib.change(
    config,
    [
      'model.dtype=bfloat16',
      f'train.batch_size={size}',
      'train.microbatches=1',
      f'sample.batch_size={size}',
      f'sample.sampler.num_steps={NUM_STEPS}',
    ],
  )


def measure(config: ml_collections.ConfigDict, at_least: float = SECONDS) -> list[Row]:
  """The training step and the sampler of a config; UserError where the config is wrong."""
  config_lib.check(config, OWNERS, jax.device_count())
  mesh = sharding.data_mesh()
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  network, method = unet.of(config), methods.make(config, mesh)
  state = jax.jit(functools.partial(method.init, config.seed), out_shardings=everywhere)()
  apply, params = unet.apply_fn(network), jax.eval_shape(lambda: state.params['network'])
  image = jax.ShapeDtypeStruct((1, *network.image_shape), jnp.float32)
  one = conditioning.given(jnp.zeros(1, jnp.int32))
  counted = costs.count_flops(apply, params, image, jnp.zeros(1), one)
  forward = counted.convolutions + counted.attention
  name = f'{config.data.name}, {config.model.dtype}'

  n = config.sample.batch_size
  indices = jax.device_put(jnp.arange(n, dtype=jnp.int32), split)
  knobs = {'w': jax.device_put(jnp.ones(n), split)}
  arguments = state.params, indices, indices % network.num_classes, knobs, np.uint32(0)
  sampler = drawing.make_sampler(config, mesh).lower(*arguments).compile()
  sampled = Row(
    f'{name}: sampler, T = {config.sample.sampler.num_steps}',
    n,
    _seconds(lambda: sampler(*arguments), at_least),
    2 * forward * n * config.sample.sampler.num_steps,
    _memory(sampler),
  )

  size = config.train.batch_size
  batch = Batch(
    jnp.zeros((size, *network.image_shape)), conditioning.given(jnp.zeros(size, jnp.int32))
  )
  batch = jax.device_put(batch, split)
  step = jax.jit(method.step, out_shardings=(everywhere, everywhere), donate_argnums=0)
  step = step.lower(state, batch).compile()

  def one_step():
    nonlocal state
    state, metrics = step(state, batch)
    return metrics

  seconds = _seconds(one_step, at_least)
  trained = Row(f'{name}: training step', size, seconds, 3 * forward * size, _memory(step))
  wait = _loader_wait(config, step, state, split, at_least)
  return [trained._replace(loader_wait=wait), sampled]


def _seconds(call, at_least: float) -> float:
  """The median of single calls."""
  jax.block_until_ready(call())
  taken, begin = [], time.perf_counter()
  while len(taken) < 3 or time.perf_counter() - begin < at_least:
    start = time.perf_counter()
    jax.block_until_ready(call())
    taken.append(time.perf_counter() - start)
  return float(np.median(taken))


def _memory(compiled: jax.stages.Compiled) -> int:
  """Bytes of a program's arrays on one device; what is donated counts once."""
  of = compiled.memory_analysis()
  sizes = of.argument_size_in_bytes + of.output_size_in_bytes + of.temp_size_in_bytes
  return sizes - of.alias_size_in_bytes


def _loader_wait(config, step, state, split, at_least: float) -> float | None:
  """The share of fed steps' time that is spent in `next(batches)`; None without the data."""
  try:
    source = registry.open_source(config.data)
  except ValueError:  # it is not on this machine
    return None
  size = config.train.batch_size
  batches = Batches(source, batch_size=size, seed=config.seed, flip=config.data.flip)
  running, waited, count, begin = None, 0.0, 0, time.perf_counter()
  while count < 4 or time.perf_counter() - begin < at_least:
    start = time.perf_counter()
    rows = next(batches)
    waited += time.perf_counter() - start
    state, metrics = step(state, sharding.from_rows(rows, split))
    if running is not None:
      jax.block_until_ready(running)
    running, count = metrics, count + 1
  jax.block_until_ready(running)
  batches.close()
  return waited / (time.perf_counter() - begin)


def show(rows: list[Row], peak: float | None) -> str:
  """The table; peak: FLOP/s of all devices together as published, None where it is not known."""
  head = ('', 'batch', 'ms', 'images/s', 'TFLOP/s', 'of peak', 'GB', 'loader wait')
  lines = [head]
  for row in rows:
    rate = row.flops / row.seconds
    lines.append(
      (
        row.what,
        f'{row.batch_size}',
        f'{1e3 * row.seconds:.1f}',
        f'{row.batch_size / row.seconds:.0f}',
        f'{rate / 1e12:.2f}',
        '–' if peak is None else f'{rate / peak:.1%}',
        f'{row.memory / 1e9:.2f}',
        '–' if row.loader_wait is None else f'{row.loader_wait:.1%}',
      )
    )
  widths = [max(map(len, column)) for column in zip(*lines)]
  return '\n'.join(
    '  '.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
  )


def peak_flops() -> float | None:
  """FLOP/s in bfloat16 of all devices together, as their makers publish it."""
  known = devices.of_kind(jax.devices()[0].device_kind)
  return known and known.peak_flops('bfloat16') * jax.device_count()
