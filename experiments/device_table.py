"""What this device does with the digits', CIFAR-10's and ADM's 64×64 network, one line a program.

For `experiments.benchmark`. A training step counts three forwards, whatever remat repeats. Memory
is the compiled program's on one device: arguments, results and working memory. The loader's wait is
its share of the time of steps that are fed by `data.Batches`, one batch in flight, as `train` feeds
them.
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
from cfg_jax.core import config_file, failures, sharding
from cfg_jax.data import registry
from cfg_jax.data.batches import Batch, Batches
from cfg_jax.equations import conditioning
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.methods import drawing
from cfg_jax.plan import cost, devices
from experiments import ratios

PER_DEVICE = {'digits': 1024, 'cifar10': 256, 'imagenet64': 64}  # images at once
NUM_STEPS = 8  # of the sampler: its rate of images is that at 8 steps, its FLOP/s are any T's
# ADM's training step once more, in other ways than its config's, remat that keeps nothing.
OTHER_WAYS = {
  ', without remat': ['model.remat=false'],
  ', remat keeps products': ['model.remat_keeps=products'],
}
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


def measure_all(at_least: float = SECONDS) -> list[Row]:
  """Of the three networks; a training step that does not fit is told of, and left out."""
  rows = [row for name in PER_DEVICE for row in measure(on_accelerator(name), at_least)]
  for way, changes in OTHER_WAYS.items():
    try:
      config = config_lib.change(on_accelerator('imagenet64'), changes)
      row = measure_step(config, at_least)
      rows.append(row._replace(what=row.what + way))
    except jax.errors.JaxRuntimeError as error:
      if failures.told(error) is None:
        raise
      print(f'imagenet64{way}: {failures.told(error).line}', flush=True)
  return rows


def measure(config: ml_collections.ConfigDict, at_least: float = SECONDS) -> list[Row]:
  """The training step and the sampler of a config; UserError where the config is wrong."""
  config_lib.check(config, OWNERS, jax.device_count())
  return [measure_step(config, at_least), measure_sampler(config, at_least)]


def measure_sampler(config: ml_collections.ConfigDict, at_least: float) -> Row:
  """Its sampler."""
  mesh, split, state = _state(config)
  n = config.sample.batch_size
  indices = jax.device_put(jnp.arange(n, dtype=jnp.int32), split)
  knobs = {'w': jax.device_put(jnp.ones(n), split)}
  classes = indices % registry.of(config.data).num_classes
  arguments = state.params, indices, classes, knobs, np.uint32(0)
  sampler = drawing.make_sampler(config, mesh).lower(*arguments).compile()
  return Row(
    f'{_name(config)}: sampler, T = {config.sample.sampler.num_steps}',
    n,
    _seconds(lambda: sampler(*arguments), at_least),
    2 * _forward(config) * n * config.sample.sampler.num_steps,
    _memory(sampler),
  )


def measure_step(config: ml_collections.ConfigDict, at_least: float) -> Row:
  """Its training step."""
  mesh, split, state = _state(config)
  method, everywhere = methods.make(config, mesh), sharding.replicated(mesh)
  size = config.train.batch_size
  batch = Batch(
    jnp.zeros((size, *registry.of(config.data).image_shape)),
    conditioning.given(jnp.zeros(size, jnp.int32)),
  )
  batch = jax.device_put(batch, split)
  step = jax.jit(method.step, out_shardings=(everywhere, everywhere), donate_argnums=0)
  step = step.lower(state, batch).compile()

  def one_step():
    nonlocal state
    state, metrics = step(state, batch)
    return metrics

  seconds = _seconds(one_step, at_least)
  wait, memory = _loader_wait(config, step, state, split, at_least), _memory(step)
  flops = 3 * _forward(config) * size
  return Row(f'{_name(config)}: training step', size, seconds, flops, memory, wait)


def _name(config):
  return f'{config.data.name}, {config.model.dtype}'


def _state(config):
  """(mesh, placement of batches, a state before its first step)."""
  mesh = sharding.data_mesh()
  create = functools.partial(methods.make(config, mesh).init, config.seed)
  state = jax.jit(create, out_shardings=sharding.replicated(mesh))()
  return mesh, sharding.batch(mesh), state


def _forward(config) -> float:
  """FLOPs of a forward pass of one image."""
  counted = cost.forward_flops(config)
  return counted.convolutions + counted.attention


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
  return ratios.aligned(lines)


def peak_flops() -> float | None:
  """FLOP/s in bfloat16 of all devices together, as their makers publish it."""
  known = devices.of_kind(jax.devices()[0].device_kind)
  return known and known.peak_flops('bfloat16') * jax.device_count()
