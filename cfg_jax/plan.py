"""What a config costs, before any money is spent: parameters, FLOPs, memory and hours.

  python -m cfg_jax.train --config configs/imagenet64.py --plan
    [--plan.device=h100 --plan.devices=8 --plan.mfu=0.4]

Nothing is allocated and no accelerator is needed: all is counted on abstract parameters. A FLOP is
half a multiply-add. `mfu` is the share of the devices' peak that reaches the model: a small network
reaches less, and so does one with remat, whose second forward pass the model does not need.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from absl import flags

from cfg_jax import config as config_lib
from cfg_jax import costs, devices, objective, paper, sharding, train_state, unet


def parameters(network: unet.UNetConfig) -> dict[str, int]:
  """The number of parameters of each part of the network, in the order of the computation."""
  params = _abstract_params(network)
  size = {name: _size(part) for name, part in params.items()}
  last = len(network.channel_mults) - 1
  levels = {'down': {}, 'up': {}}
  for way in levels:
    for i, stage in params[way].items():
      n = int(i) // (network.num_blocks + 1)  # a level's stages: its blocks, and one that halves
      level = n if way == 'down' else last - n
      height, width = (side >> level for side in network.image_shape[:2])
      name = f'{way}, {height}×{width}, {network.channels * network.channel_mults[level]} channels'
      levels[way][name] = levels[way].get(name, 0) + _size(stage)
  return {
    'embedding of λ': size['lambda_in'] + size['lambda_out'],
    'embedding of the class': size['class_emb'],
    'first convolution': size['conv_in'],
    **levels['down'],
    'middle': size['middle'],
    **levels['up'],
    'last norm and convolution': size['norm_out'] + size['conv_out'],
  }


class ImageFlops(NamedTuple):
  """One network call for one image, training on one image, and that with what remat repeats."""

  forward: costs.Flops
  train: costs.Flops
  train_remat: costs.Flops | None  # None where the config does not ask for it


def image_flops(config: ml_collections.ConfigDict) -> ImageFlops:
  """The FLOPs of what a run repeats for every image. Adam and EMA, once a batch, are left out.

  A guided ε̃ is two network calls.
  """
  return ImageFlops(
    forward_flops(config),
    train_flops(config, remat=False),
    train_flops(config, remat=True) if config.model.remat else None,
  )


def forward_flops(config: ml_collections.ConfigDict) -> costs.Flops:
  """The FLOPs of one call of the network for one image."""
  network = dataclasses.replace(config_lib.network_of(config), remat=False)
  params, (x, c) = _abstract_params(network), _abstract_batch(network, 1)
  lam = jax.ShapeDtypeStruct((1,), jnp.float32)
  return costs.count_flops(_apply_fn(network), params, x, lam, c)


def train_flops(config: ml_collections.ConfigDict, *, remat: bool) -> costs.Flops:
  """The FLOPs of training on one image; remat: with what it repeats."""
  network = dataclasses.replace(config_lib.network_of(config), remat=remat)
  loss, params = _loss_fn(config, network), _abstract_params(network)
  return costs.count_flops(jax.value_and_grad(loss), params, *_abstract_batch(network, 1))


def count_memory(
  config: ml_collections.ConfigDict, images: int, num_devices: int = 1
) -> dict[str, int]:
  """Bytes on each of num_devices that trains on `images` images of a batch, by arithmetic.

  Activations are what the forward pass of a microbatch keeps for the backward pass, as JAX's
  differentiation decides it, and with remat the most that one recomputed stage keeps. Compilers
  fuse some of it away and add scratch space of their own: XLA for a CPU, with the scheduler that
  saves memory, took 0.6 to 1 times as much for activations without remat, 1.2 to 1.7 times with.
  """
  network, train = config_lib.network_of(config), config.train
  params = _abstract_params(network)
  leaves = jax.tree.leaves(params)
  weights = costs.num_bytes(leaves)
  shared = weights  # of what train.shard_optimizer shares out
  if train.shard_optimizer:
    split = [x for x in leaves if sharding.split_axis(x.shape, num_devices) is not None]
    shared -= costs.num_bytes(split) * (num_devices - 1) // num_devices
  loss, at_once = _loss_fn(config, network), images // train.microbatches
  kept, largest = costs.kept_bytes(loss, params, *_abstract_batch(network, at_once))
  memory = {
    'parameters, float32': weights,
    'EMA': shared,
    "Adam's two moments": 2 * shared,
    'gradients': weights,
  }
  if train.microbatches > 1:
    memory['gradients, of one microbatch'] = weights
  memory['activations kept for the backward pass'] = kept
  return memory | {'the largest stage, recomputed': largest} if network.remat else memory


def table_calls(config: ml_collections.ConfigDict) -> list[tuple[str, int]]:
  """(what, network calls for an image) of each column of the paper's table of this data set.

  Where the paper has none, of what the config's own `sample` asks for. One call a step at w = 0,
  two where guided.
  """
  sampler = config.sample
  columns = [
    (f'{c.table}, {c.field} = {c.value:g}', c.w, c.value if c.field == 'T' else sampler.num_steps)
    for c in paper.curves(config.data.name)
  ] or [('sampling', sampler.w, sampler.num_steps)]
  return [
    (
      f'{what}: {len(w)} w × {sampler.num_samples:,} samples, T = {num_steps:g}',
      sum(1 if x == 0 else 2 for x in w) * sampler.num_samples * int(num_steps),
    )
    for what, w, num_steps in columns
  ]


def compiled_memory(
  network: unet.UNetConfig,
  optimizer: optax.GradientTransformation,
  train_step: Callable,
  images: int,
) -> int:
  """Bytes that the whole training step takes, as XLA compiles it for the device here. Minutes."""
  state = jax.eval_shape(functools.partial(train_state.create, network, optimizer, 0))
  batch = dict(zip('xc', _abstract_batch(network, images)))
  compiled = jax.jit(train_step, donate_argnums=0).lower(state, batch).compile()
  m = compiled.memory_analysis()
  held = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
  return held + m.temp_size_in_bytes + m.generated_code_size_in_bytes


def show(
  config: ml_collections.ConfigDict,
  optimizer: optax.GradientTransformation,
  train_step: Callable,
  *,
  device: str,
  num_devices: int,
  mfu: float,
) -> None:
  """Prints the plan. Raises ValueError for a wrong config, device, number of devices or mfu."""
  kind = _checked(device, num_devices, mfu)
  config_lib.validate(config, num_devices)
  network = config_lib.network_of(config)
  peak = kind.peak_flops(network.dtype)
  units = kind.float32_is if network.dtype == 'float32' else network.dtype
  print(
    f'{config.data.name} on {num_devices} × {kind.name}, each of {kind.memory_gb:g} GB and '
    f'{peak / 1e12:g} TFLOP/s in {units}, at {mfu:.0%} of that'
  )
  _show_parameters(network)
  flops = image_flops(config)
  _show_flops(config, flops)
  _show_hours(config, flops, num_devices, peak * mfu)
  _show_memory(config, optimizer, train_step, kind, num_devices)


def _checked(device, num_devices, mfu):
  if device not in devices.DEVICES:
    raise ValueError(f'--plan.device={device} is none of {", ".join(devices.DEVICES)}.')
  if num_devices < 1:
    raise ValueError(f'--plan.devices={num_devices} must be at least 1.')
  if not 0 < mfu <= 1:
    raise ValueError(f'--plan.mfu={mfu} is a share of the peak: above 0, at most 1.')
  return devices.DEVICES[device]


def _show_parameters(network):
  print('\nParameters')
  parts = parameters(network)
  for name, n in parts.items():
    _row(name, f'{n:,}')
  _row('all', f'{sum(parts.values()):,}')


def _show_flops(config, flops):
  def row(name, count, times=1):
    counts = (count.compiler, count.convolutions + count.attention)
    _row(name, *(_short(times * n / 1e9) for n in counts))

  print(f'\n{"GFLOPs an image":<64}{"compiler":>14}{"with padding":>14}')
  row('one network call', flops.forward)
  row('training', flops.train)
  if flops.train_remat:
    row('training, with what remat repeats', flops.train_remat)
  num_steps = config.sample.num_steps
  row(f'sampling, T = {num_steps}, w = 0', flops.forward, num_steps)
  row(f'sampling, T = {num_steps}, guided: two calls a step', flops.forward, 2 * num_steps)
  compiler, products, attention = (_short(n / 2e9) for n in flops.forward)
  print(
    f'  One call in GMACs: {compiler} by the compiler; with padding, {products} in convolutions\n'
    f'  and linear layers, and {attention} in the two products of attention.'
  )


def _show_hours(config, flops, num_devices, flops_each):
  rate, train = num_devices * flops_each * 3600, config.train
  print(f'\nHours on all {num_devices}, without evaluation')
  train_hours = train.num_steps * train.batch_size * flops.train.compiler / rate
  seconds = _short(train_hours * 3600 / train.num_steps)
  _row(f'training: {train.num_steps:,} steps of {seconds} s', _short(train_hours))
  hours = 0.0
  for what, calls in table_calls(config):
    hours += (column := calls * flops.forward.compiler / rate)
    _row(what, _short(column))
  models = sum(c.field == 'p_uncond' for c in paper.curves(config.data.name)) or 1
  hours += models * train_hours
  _row(f'all, with {models} trained model{"s" * (models > 1)}', _short(hours))
  _row('all, in hours of one device', _short(hours * num_devices))


def _show_memory(config, optimizer, train_step, kind, num_devices):
  images, microbatches = config.train.batch_size // num_devices, config.train.microbatches
  at_once = '' if microbatches == 1 else f', {images // microbatches} at once'
  print(f'\nGB a device in training, with {images} images of the batch{at_once}')
  memory = count_memory(config, images, num_devices)
  for name, n in memory.items():
    _row(name, _short(n / 1e9))
  total = sum(memory.values()) / 1e9
  _row("all, by arithmetic, without the compiler's scratch space", _short(total))
  if total > kind.memory_gb:
    more = [] if config.train.shard_optimizer else ['train.shard_optimizer']
    more += [] if config.model.remat else ['model.remat']
    more = ', '.join(['more train.microbatches', *more, 'more devices'])
    print(f'  {kind.name} has {kind.memory_gb:g}: take {more} or a smaller batch.')
  if devices.of_kind(jax.devices()[0].device_kind) == kind:
    print('  Compiling the step, minutes ...', flush=True)
    network = config_lib.network_of(config)
    n = compiled_memory(network, optimizer, train_step, images)
    alone = ' alone' if config.train.shard_optimizer else ''
    _row(f'all, as compiled for the device here{alone}', _short(n / 1e9))


def define_flags() -> None:
  """--plan, and what it is asked of."""
  flags.DEFINE_boolean('plan', False, 'Says what the config costs, and does nothing.')
  define_device_flags()


def define_device_flags() -> None:
  """What hours are counted for."""
  flags.DEFINE_string('plan.device', 'h100', f'One of {", ".join(devices.DEVICES)}.')
  flags.DEFINE_integer('plan.devices', 8, 'How many of them.')
  flags.DEFINE_float('plan.mfu', 0.4, "The share of the devices' peak that reaches the model.")


def device_of_flags() -> tuple[devices.Device, int, float]:
  """The device that hours are counted for, how many of them, and the share of their peak."""
  device, num_devices, mfu = _device_flags()
  return _checked(device, num_devices, mfu), num_devices, mfu


def _device_flags():
  return (flags.FLAGS[f'plan.{name}'].value for name in ('device', 'devices', 'mfu'))


def main(
  config: ml_collections.ConfigDict,
  optimizer: optax.GradientTransformation,
  train_step: Callable,
) -> None:
  """The command, from the flags."""
  device, num_devices, mfu = _device_flags()
  show(config, optimizer, train_step, device=device, num_devices=num_devices, mfu=mfu)


def _loss_fn(config: ml_collections.ConfigDict, network: unet.UNetConfig) -> Callable:
  """(params, x, c) → the loss that training differentiates, with a fixed key."""
  apply = _apply_fn(network)

  def loss(params, x, c):
    k_loss, k_net = jax.random.split(jax.random.key(config.seed))
    keys = jax.random.split(k_net, len(c)) if network.dropout else None
    return objective.loss(
      functools.partial(apply, params, keys=keys),
      k_loss,
      x,
      c,
      p_uncond=config.train.p_uncond,
      null_class=network.num_classes,
      lambda_min=config.diffusion.lambda_min,
      lambda_max=config.diffusion.lambda_max,
    )

  return loss


_apply_fn = functools.cache(train_state.apply_fn)  # seconds for a large network


@functools.cache
def _abstract_params(network: unet.UNetConfig) -> dict:
  return jax.eval_shape(functools.partial(train_state.create_params, network, 0))


def _abstract_batch(network: unet.UNetConfig, size: int) -> tuple:
  x = jax.ShapeDtypeStruct((size, *network.image_shape), jnp.float32)
  return x, jax.ShapeDtypeStruct((size,), jnp.int32)


def _size(part: dict) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))


def _row(name: str, *values: str) -> None:
  print(f'  {name:<62}' + ''.join(f'{value:>14}' for value in values), flush=True)


def _short(x: float) -> str:
  """Three digits, one after the point from 100 on and none from 1000 on."""
  return f'{x:,.0f}' if x >= 1000 else f'{x:.1f}' if x >= 100 else f'{x:.3g}'
