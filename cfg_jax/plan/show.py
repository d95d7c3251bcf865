"""What a config costs, before any money is spent: parameters, FLOPs, memory and hours.

  python -m cfg_jax.plan --config configs/imagenet64.py
    [--plan.device=h100 --plan.devices=8 --plan.mfu=0.4]

Nothing is allocated and no accelerator is needed: see `cost`. `mfu` is the share of the
devices' peak that reaches the model: a small network reaches less, and so does one with remat,
whose second forward pass the model does not need.
"""

import jax
import ml_collections
from absl import flags

from cfg_jax.core import config as config_lib
from cfg_jax.core.errors import UserError
from cfg_jax.equations import samplers
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.plan import cost, devices


def show(
  config: ml_collections.ConfigDict,
  *,
  device: str,
  num_devices: int,
  mfu: float,
) -> None:
  """Prints the plan. Raises ValueError for a wrong config, device, number of devices or mfu."""
  kind = _checked(device, num_devices, mfu)
  config_lib.check(config, OWNERS, num_devices)
  dtype = config.model.dtype
  peak = kind.peak_flops(dtype)
  units = kind.float32_is if dtype == 'float32' else dtype
  print(
    f'{config.data.name} on {num_devices} × {kind.name}, each of {kind.memory_gb:g} GB and '
    f'{peak / 1e12:g} TFLOP/s in {units}, at {mfu:.0%} of that'
  )
  _show_parameters(config)
  flops = cost.image_flops(config)
  _show_flops(config, flops)
  _show_hours(config, flops, num_devices, peak * mfu)
  _show_memory(config, kind, num_devices)


def _checked(device, num_devices, mfu):
  if device not in devices.DEVICES:
    raise UserError(f'--plan.device={device} is none of {", ".join(devices.DEVICES)}.')
  if num_devices < 1:
    raise UserError(f'--plan.devices={num_devices} must be at least 1.')
  if not 0 < mfu <= 1:
    raise UserError(f'--plan.mfu={mfu} is a share of the peak: above 0, at most 1.')
  return devices.DEVICES[device]


def _show_parameters(config):
  print('\nParameters')
  parts = cost.parameters(config)
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
  sampler = config.sample.sampler
  calls, what = samplers.calls(sampler), f'sampling, {sampler.name}, T = {sampler.num_steps}'
  row(f'{what}, w = 0: {calls} calls', flops.forward, calls)
  row(f'{what}, guided: {2 * calls} calls', flops.forward, 2 * calls)
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
  columns = cost.columns(config)
  for name, changed in columns.items():
    sample = changed.sample
    hours += (column := cost.sampling_calls(sample) * flops.forward.compiler / rate)
    what = f'{len(sample.guidance.w)} w × {sample.num_samples:,} samples'
    _row(f'{name}: {what}, T = {sample.sampler.num_steps}', _short(column))
  models = cost.num_models(columns.values())
  hours += models * train_hours
  _row(f'all, with {models} trained model{"s" * (models > 1)}', _short(hours))
  _row('all, in hours of one device', _short(hours * num_devices))


def _show_memory(config, kind, num_devices):
  images, microbatches = config.train.batch_size // num_devices, config.train.microbatches
  at_once = '' if microbatches == 1 else f', {images // microbatches} at once'
  print(f'\nGB a device in training, with {images} images of the batch{at_once}')
  memory = cost.count_memory(config, images, num_devices)
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
    n = cost.compiled_memory(config, images)
    alone = ' alone' if config.train.shard_optimizer else ''
    _row(f'all, as compiled for the device here{alone}', _short(n / 1e9))


def define_flags() -> None:
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


def main(config: ml_collections.ConfigDict) -> None:
  """The plan that the flags ask for."""
  device, num_devices, mfu = _device_flags()
  show(config, device=device, num_devices=num_devices, mfu=mfu)


def _row(name: str, *values: str) -> None:
  print(f'  {name:<62}' + ''.join(f'{value:>14}' for value in values), flush=True)


def _short(x: float) -> str:
  """Three digits, one after the point from 100 on and none from 1000 on."""
  return f'{x:,.0f}' if x >= 1000 else f'{x:.1f}' if x >= 100 else f'{x:.3g}'
