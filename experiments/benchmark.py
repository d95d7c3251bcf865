"""Speed on this machine, as ratios measured in one run. Prints; asserts nothing.

  python -m experiments.benchmark [--config configs/digits.py]

FLOPs are those of the convolutions and matrix products as they are written, two for each
multiply-add, padding included, as papers count them; a training step counts three forwards.
Rates are beside this machine's own rate of a float32 matrix product over the same devices. The
input pipeline runs by itself, on all cores; preparing and reading 64×64 images, on one.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from ml_collections import config_flags

from cfg_jax.core import command as cli
from cfg_jax.core import config as config_lib
from cfg_jax.core import runtime, sharding
from cfg_jax.core import state as train_state
from cfg_jax.data import batches as data
from cfg_jax.data.prepare import speed
from cfg_jax.equations import diffusion, guidance
from cfg_jax.equations import samplers as sampling
from cfg_jax.generate.draw import make_sampler, sample_keys
from cfg_jax.plan import flops as costs
from cfg_jax.train import loop as train

ROUNDS = 7


def seconds(*calls: Callable[[], object]) -> list[float]:
  """The least seconds of each call over a few rounds, in turns so that all see the same machine."""
  best = [np.inf] * len(calls)
  for call in calls:
    jax.block_until_ready(call())  # compiles
  for _ in range(ROUNDS):
    for i, call in enumerate(calls):
      begin = time.perf_counter()
      jax.block_until_ready(call())
      best[i] = min(best[i], time.perf_counter() - begin)
  return best


def benchmark(config: ml_collections.ConfigDict) -> None:
  """Prints the table for a config's network, batch sizes and T."""
  config_lib.validate(config, jax.device_count())
  mesh = sharding.data_mesh()
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  network = config_lib.network_of(config)
  optimizer = train.make_optimizer(config.train)
  create = jax.jit(
    functools.partial(train_state.create, network, optimizer, config.seed),
    out_shardings=everywhere,
  )
  state = create()
  params = jax.jit(lambda p: jax.tree.map(jnp.copy, p), out_shardings=everywhere)(state.params)
  apply = train_state.apply_fn(network)

  side = 2048
  left = jax.device_put(jnp.ones((side, side)), split)
  right = jax.device_put(jnp.ones((side, side)), everywhere)
  matmul = jax.jit(jnp.matmul)

  batch_size = config.train.batch_size
  batch = {
    'x': jax.device_put(jnp.zeros((batch_size, *network.image_shape)), split),
    'c': jax.device_put(jnp.zeros(batch_size, jnp.int32), split),
  }
  train_step = jax.jit(
    train.make_train_step(config, optimizer, mesh),
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
  sampler = make_sampler(config, mesh)

  z = jax.device_put(jnp.zeros((n, *network.image_shape)), split)
  lam = jax.device_put(jnp.zeros(n), split)
  null_class = network.num_classes
  null = jnp.full_like(c, null_class)
  eps_fn = jax.jit(apply)
  batched = jax.jit(
    lambda p, z, lam, c: guidance.guide(functools.partial(apply, p), c, w, null_class)(z, lam)
  )
  combine = jax.jit(guidance.guided_eps)
  schedule = {
    'num_steps': config.sample.num_steps,
    'v': config.sample.v,
    'lambda_min': config.diffusion.lambda_min,
    'lambda_max': config.diffusion.lambda_max,
    'clip_x': config.sample.clip_x,
  }
  loop = python_loop(batched, params, c, network.image_shape, config.sample.seed, **schedule)

  t_matmul, t_train, t_sample, t_batched, t_separate, t_loop = seconds(
    lambda: matmul(left, right),
    one_step,
    lambda: sampler(params, indices, c, w),
    lambda: batched(params, z, lam, c),
    lambda: combine(eps_fn(params, z, lam, c), eps_fn(params, z, lam, null), w),
    lambda: loop(indices),
  )
  counted = costs.count_flops(apply, params, z[:1], lam[:1], c[:1])
  forward = counted.convolutions + counted.attention
  rate = 2 * side**3 / t_matmul
  train_rate = 3 * forward * batch_size / t_train
  sample_rate = 2 * forward * n * config.sample.num_steps / t_sample

  devices = f'{jax.device_count()} {jax.devices()[0].platform} device(s)'
  print(f'{devices}; {forward / 1e6:.1f} MFLOP a forward pass of one image')
  print(f'float32 matrix product  {rate / 1e9:7.1f} GFLOP/s')
  for name, own_rate, images in (
    ('training step', train_rate, batch_size / t_train),
    (f'sampler, T={config.sample.num_steps}', sample_rate, n / t_sample),
  ):
    print(f'{name:23s} {own_rate / 1e9:7.1f} GFLOP/s, {own_rate / rate:.0%}; {images:.0f} images/s')
  print(f'one batched call        {t_separate / t_batched:7.2f} × as fast as two separate ones')
  print(
    f'the scan                {t_loop / t_sample:7.2f} × as fast as a Python loop over the step'
  )
  try:
    fed = pipeline_rate(config)
    ratio = fed / (batch_size / t_train)
    print(f'input pipeline          {fed:7.0f} images/s, {ratio:.1f} × the training step')
  except ValueError as error:  # the data is not on this machine
    print(f'input pipeline: {error}')
  rates = speed.measure(size=64)
  print(
    f'64×64, on one core      {rates["read"]:7.0f} images/s read, {rates["prepare"]:.0f} prepared '
    'from JPEGs of 375×500'
  )


def pipeline_rate(config: ml_collections.ConfigDict, at_least: float = 3.0) -> float:
  """Images a second of `data.Batches` by itself; ValueError where the data is not prepared."""
  source = config_lib.dataset_of(config).open(Path(config.data.dir).expanduser(), 'train')
  size = config.train.batch_size
  batches = data.Batches(source, batch_size=size, seed=config.seed, flip=config.data.flip)
  for _ in range(20):  # more than are read ahead
    next(batches)
  count, begin = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - begin) < at_least:
    next(batches)
    count += size
  batches.close()
  return count / elapsed


def python_loop(guided, params, c, shape, seed, *, num_steps, v, lambda_min, lambda_max, clip_x):
  """Algorithm 2 as a Python loop over jitted parts, which `sampling.sample` is held against."""

  @jax.jit
  def noise(keys, t):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)

  @jax.jit
  def move(z, eps, lam, lam_next, eps_next):
    x = diffusion.predict_x(z, eps, lam)
    mean, variance = diffusion.reverse(z, jnp.clip(x, -1, 1) if clip_x else x, lam, lam_next, v)
    return mean + jnp.sqrt(variance) * eps_next

  def loop(indices):
    keys = sample_keys(seed, indices)
    lam = sampling.lambda_grid(num_steps, lambda_min, lambda_max)
    z = noise(keys, 0)
    for t in range(num_steps - 1):
      eps = guided(params, z, jnp.full(len(z), lam[t]), c)
      z = move(z, eps, lam[t], lam[t + 1], noise(keys, t + 1))
    return diffusion.predict_x(z, guided(params, z, jnp.full(len(z), lam[-1]), c), lam[-1])

  return loop


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  config = config_lib.of_flags()
  batch_sizes = config.train.batch_size, config.sample.batch_size
  runtime.setup_jax(*batch_sizes, channels=config.model.channels)
  benchmark(config)


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', 'configs/digits.py', lock_config=True)
  cli.run(main)
