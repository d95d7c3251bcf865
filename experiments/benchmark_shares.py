"""Training and sampling as shares of what this machine can do. Prints; asserts nothing.

  python -m experiments.benchmark_shares [--config configs/digits.py]

FLOPs are those of the convolutions and matrix products as they are written, two for each
multiply-add, padding included, as papers count them; a training step counts three forwards.
Rates are beside this machine's own rate of a float32 matrix product over the same devices. The
sampler is Algorithm 2 in the config's number of steps, which a Python loop can be held against. The
input pipeline runs by itself, on all cores; preparing and reading 64×64 images, on one.
"""

import functools
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from cfg_jax import methods
from cfg_jax.core import command, runtime, sharding
from cfg_jax.core import config as config_lib
from cfg_jax.data import registry
from cfg_jax.data.batches import Batch, Batches
from cfg_jax.data.prepare import speed
from cfg_jax.equations import conditioning, diffusion, guidance, samplers
from cfg_jax.equations.guidance import pairs
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.methods import drawing
from cfg_jax.nets import unet
from cfg_jax.plan import cost
from experiments import ratios
from experiments.ratios import Row


def measure(config: ml_collections.ConfigDict, turns: int) -> list[Row]:
  """The rows of a config's network, batch sizes and T; prints the rates behind them."""
  config = config_lib.change(config, ['sample.sampler.name=ddpm', 'sample.sampler.grid=paper'])
  config_lib.check(config, OWNERS, jax.device_count())
  mesh = sharding.data_mesh()
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  network, method = unet.of(config), methods.make(config, mesh)
  state = jax.jit(functools.partial(method.init, config.seed), out_shardings=everywhere)()
  params = jax.jit(lambda p: jax.tree.map(jnp.copy, p), out_shardings=everywhere)(state.params)
  apply = unet.apply_fn(network)

  side = 2048
  left = jax.device_put(jnp.ones((side, side)), split)
  right = jax.device_put(jnp.ones((side, side)), everywhere)
  matmul = jax.jit(jnp.matmul)

  batch_size = config.train.batch_size
  x = jnp.zeros((batch_size, *network.image_shape))
  cond = conditioning.given(jnp.zeros(batch_size, jnp.int32))
  batch = jax.device_put(Batch(x, cond), split)
  train_step = jax.jit(
    method.step,
    out_shardings=(everywhere, everywhere),
    donate_argnums=0,
  )

  def one_step():
    nonlocal state
    state, metrics = train_step(state, batch)
    return metrics

  n = config.sample.batch_size
  indices = jax.device_put(jnp.arange(n, dtype=jnp.int32), split)
  c = jax.device_put(jnp.arange(n, dtype=jnp.int32) % network.num_classes, split)
  w = jax.device_put(jnp.full(n, 1.0), split)
  sampler, knobs = drawing.make_sampler(config, mesh), {'w': w}

  z = jax.device_put(jnp.zeros((n, *network.image_shape)), split)
  lam = jax.device_put(jnp.zeros(n), split)
  given = jax.device_put(conditioning.given(c), split)
  null = conditioning.null(given)
  eps_fn = jax.jit(apply)

  @jax.jit
  def batched(params, z, lam, cond):
    pair = pairs.null(functools.partial(apply, params), cond)
    towards, away = pair(z, lam)
    return guidance.guided_eps(towards.eps, away.eps, w)

  combine = jax.jit(guidance.guided_eps)
  settings = config.sample.sampler
  grid = samplers.grid_of(settings, **config.diffusion)
  keys = drawing.sample_keys(config.sample.seed, indices)
  guided = functools.partial(batched, params['network'])
  loop = python_loop(guided, given, keys, network.image_shape, grid, settings.v, settings.clip_x)

  t_matmul, t_train, t_sample, t_batched, t_separate, t_loop = ratios.in_turns(
    turns,
    lambda: matmul(left, right),
    one_step,
    lambda: sampler(params, indices, c, knobs, np.uint32(0)),
    lambda: batched(params['network'], z, lam, given),
    lambda: combine(*(eps_fn(params['network'], z, lam, side) for side in (given, null)), w),
    loop,
  )
  counted = cost.forward_flops(config)
  forward = counted.convolutions + counted.attention
  rate = 2 * side**3 / t_matmul
  train_rate = 3 * forward * batch_size / t_train
  sample_rate = 2 * forward * n * settings.num_steps / t_sample

  devices = f'{jax.device_count()} {jax.devices()[0].platform} device(s)'
  print(f'{devices}; {forward / 1e6:.1f} MFLOP a forward pass of one image')
  print(f'float32 matrix product  {np.median(rate) / 1e9:7.1f} GFLOP/s')
  rows = []
  for name, own_rate, images in (
    ('training step', train_rate, batch_size / t_train),
    (f'sampler, T={settings.num_steps}', sample_rate, n / t_sample),
  ):
    print(f'{name:23s} {np.median(own_rate) / 1e9:7.1f} GFLOP/s, {np.median(images):.0f} images/s')
    what = f'{config.data.name}: {name}, of the float32 product, {ratios.on_cores()}'
    rows.append(Row(what, list(own_rate / rate), '%'))
  rows += [
    Row('one batched call, beside two separate ones', list(t_separate / t_batched)),
    Row('the scan, beside a Python loop over the step', list(t_loop / t_sample)),
  ]
  try:
    fed = [pipeline_rate(config) for _ in range(turns)]
    rows.append(Row('input pipeline, beside the training step', list(fed * t_train / batch_size)))
  except ValueError as error:  # the data is not on this machine
    print(f'input pipeline: {error}')
  rates = speed.measure(size=64)
  print(
    f'64×64, on one core      {rates["read"]:7.0f} images/s read, {rates["prepare"]:.0f} prepared '
    'from JPEGs of 375×500'
  )
  return rows


def pipeline_rate(config: ml_collections.ConfigDict, at_least: float = 1.0) -> float:
  """Images a second of `data.Batches` by itself; ValueError where the data is not prepared."""
  source = registry.open_source(config.data)
  size = config.train.batch_size
  batches = Batches(source, batch_size=size, seed=config.seed, flip=config.data.flip)
  for _ in range(20):  # more than are read ahead
    next(batches)
  count, begin = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - begin) < at_least:
    next(batches)
    count += size
  batches.close()
  return count / elapsed


def python_loop(guided, cond, keys, shape, grid, v, clip_x):
  """Algorithm 2 as a Python loop over jitted parts, which the scan is compared with."""

  @jax.jit
  def noise(t):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)

  @jax.jit
  def move(z, eps, lam, lam_next, eps_next):
    x = diffusion.predict_x(z, eps, lam)
    mean, variance = diffusion.reverse(z, jnp.clip(x, -1, 1) if clip_x else x, lam, lam_next, v)
    return mean + jnp.sqrt(variance) * eps_next

  def loop():
    z = noise(0)
    for t in range(len(grid) - 1):
      eps = guided(z, jnp.full(len(z), grid[t]), cond)
      z = move(z, eps, grid[t], grid[t + 1], noise(t + 1))
    return diffusion.predict_x(z, guided(z, jnp.full(len(z), grid[-1]), cond), grid[-1])

  return loop


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  config = command.config_of_file()
  batch_sizes = config.train.batch_size, config.sample.batch_size
  runtime.setup_jax(*batch_sizes, channels=config.model.channels)
  ratios.report(measure(config, flags.FLAGS.turns))


if __name__ == '__main__':
  command.define_config_flags('configs/digits.py', required=False)
  ratios.define_flags(turns=7)
  command.run(main)
