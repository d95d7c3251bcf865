"""What a config costs, before any money is spent: parameters, FLOPs, memory and hours.

  python -m cfg_jax.plan --config configs/imagenet64.py
    [--plan.device=h100 --plan.devices=8 --plan.mfu=0.4]
  python -m cfg_jax.plan --config configs/mnist.py --plan.device=here

With `here` the training step and the network are timed on this machine: see here.py. Else nothing
is allocated and no accelerator is needed: see cost.py. `mfu` is the share of the devices' peak that
reaches the model: a small network reaches less, and so does one with remat, whose second forward
pass the model does not need.
"""

import jax
import ml_collections
from absl import flags

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import runtime
from cfg_jax.core.errors import UserError
from cfg_jax.evaluate import owners
from cfg_jax.plan import cost, devices, here


def show(
  config: ml_collections.ConfigDict,
  *,
  device: str,
  num_devices: int,
  mfu: float,
) -> None:
  """Prints the plan. Raises ValueError for a wrong config, device, number of devices or mfu."""
  kind = _checked(device, num_devices, mfu)
  config_lib.check(config, owners.of(config), num_devices)
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


def show_here(config: ml_collections.ConfigDict) -> None:
  """Prints the plan for the devices of this machine, of which it measures some seconds.

  Raises UserError for a wrong config.
  """
  num_devices = jax.device_count()
  config_lib.check(config, owners.of(config), num_devices)
  print(f'{config.data.name} on the {num_devices} × {jax.devices()[0].device_kind} here, measured')
  _show_parameters(config)
  flops = cost.image_flops(config)
  _show_flops(config, flops)
  print('\nMeasuring: two programs are compiled, and timed ...', flush=True)
  if (busy := here.load()) > 0.5:
    print(f'  Others compute here too (load {busy:.1f}): alone it would be faster.')
  found = here.measure(config, flops)
  image_rate = found.step / config.train.batch_size
  what = f'a training step, from {found.step_images} of {config.train.batch_size} images'
  _row(what, duration(found.step))
  _row(f'a network call, an image, from {found.call_images}', duration(found.call))
  gflops = flops.train.compiler / image_rate / 1e9, flops.forward.compiler / found.call / 1e9
  _row('GFLOP/s of either', *map(_short, gflops))
  _show_times(
    config,
    config.train.num_steps * found.step / 3600,
    found.call / 3600,
    lambda h: duration(3600 * h),
  )
  _show_memory(config, None, num_devices)


def duration(seconds: float) -> str:
  """Seconds in the unit in which they are read, such as '67 ms', '8.2 min', '3.4 h' or '5.1 d'."""
  for unit, size in (('d', 86400 * 2), ('h', 3600), ('min', 60), ('s', 1)):
    if seconds >= size:
      return f'{_short(seconds / min(size, 86400))} {unit}'
  return f'{_short(1000 * seconds)} ms'


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
  if methods.draws(config):
    sampler = config.sample.sampler
    for text, w in (('w = 0', 0.0), ('guided', 1.0)):
      calls = cost.image_calls(config, w)
      what = f'sampling, {sampler.name}, T = {sampler.num_steps}, {text}: {_short(calls)} calls'
      row(what, flops.forward, calls)
    if shared := cost.shared_calls(config):
      print(f'  The first {shared} calls are the same for all w of one noise, and are made once.')
    if (share := cost.second_pass(config)) < 1:
      print(f'  A pass with ∅ is {_short(share)} calls: both share what is before the class.')
    if share := cost.guide_calls(config):
      print(f'  A gradient of the guide is {_short(share)} calls, which are counted here.')
  compiler, products, attention = (_short(n / 2e9) for n in flops.forward)
  print(
    f'  One call in GMACs: {compiler} by the compiler; with padding, {products} in convolutions\n'
    f'  and linear layers, and {attention} in the two products of attention.'
  )


def _show_hours(config, flops, num_devices, flops_each):
  rate = num_devices * flops_each * 3600
  train = config.train.num_steps * config.train.batch_size * flops.train.compiler / rate
  print(f'\nHours on all {num_devices}, without evaluation')
  hours = _show_times(config, train, flops.forward.compiler / rate, _short)
  _row('all, in hours of one device', _short(hours * num_devices))


def _show_times(config, train_hours, call_hours, text):
  """The rows of what is trained and drawn, hours written by `text`; returns the hours of all."""
  steps = config.train.num_steps
  seconds = _short(train_hours * 3600 / steps)
  _row(f'training: {steps:,} steps of {seconds} s', text(train_hours))
  if not methods.draws(config):
    return train_hours
  hours = 0.0
  columns = cost.columns(config)
  for name, changed in columns.items():
    sample = changed.sample
    hours += (column := cost.sampling_calls(changed) * call_hours)
    what = f'{len(sample.guidance.w)} w × {sample.num_samples:,} samples'
    _row(f'{name}: {what}, T = {sample.sampler.num_steps}', text(column))
  models = cost.num_models(columns.values())
  hours += models * train_hours
  _row(f'all, with {models} trained model{"s" * (models > 1)}', text(hours))
  return hours


def _show_memory(config, kind, num_devices):
  images, microbatches = config.train.batch_size // num_devices, config.train.microbatches
  at_once = '' if microbatches == 1 else f', {images // microbatches} at once'
  print(f'\nGB a device in training, with {images} images of the batch{at_once}')
  memory = cost.count_memory(config, images, num_devices)
  for name, n in memory.items():
    _row(name, _short(n / 1e9))
  total = sum(memory.values()) / 1e9
  _row("all, by arithmetic, without the compiler's scratch space", _short(total))
  if kind is None:
    return
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
  flags.DEFINE_string('plan.device', 'h100', f'One of {", ".join(devices.DEVICES)}, or here.')
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
  if device == 'here':
    sizes = config.train.batch_size, config.sample.batch_size
    runtime.setup_jax(*sizes, channels=config.model.channels)
    show_here(config)
    return
  show(config, device=device, num_devices=num_devices, mfu=mfu)


def _row(name: str, *values: str) -> None:
  print(f'  {name:<62}' + ''.join(f'{value:>14}' for value in values), flush=True)


def _short(x: float) -> str:
  """Three digits, one after the point from 100 on and none from 1000 on."""
  return f'{x:,.0f}' if x >= 1000 else f'{x:.1f}' if x >= 100 else f'{x:.3g}'
