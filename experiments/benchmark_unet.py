"""Our U-Net beside PyTorch's on the same weights, in turns, in one run. Prints; asserts nothing.

  python -m experiments.benchmark_unet [--size adm64 --batch_size 2]      (extra [parity])
  taskset -c 0 python -m experiments.benchmark_unet                       on one core
  python -m experiments.benchmark_unet --dtype bfloat16                   on a GPU

The other network is `adm_pytorch`, eager and by torch.compile (which needs a C++ compiler), on the
GPU if JAX has one; bfloat16 is its autocast. All use the cores that the process may, each in a
process of its own, as it is used alone: PyTorch does without the memory settings of
`runtime.setup_jax`. The gradient is that of the mean square of ε by all parameters.
"""

import functools
import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import flags

from cfg_jax.core import command as cli
from cfg_jax.core import runtime, sharding
from cfg_jax.core.errors import UserError
from cfg_jax.equations import conditioning
from cfg_jax.nets import adm_layout, unet
from cfg_jax.nets.embed import adm_lambdas
from experiments import adm_pytorch, ratios
from experiments.ratios import Row

SIZES = {
  'small': adm_pytorch.ADM(  # that of configs/digits.py
    8, 48, (1, 2), 1, (4,), 48, None, new_attention_order=True, num_classes=10, groups=16
  ),
  'cifar10': adm_pytorch.ADM(  # and of configs/cifar10.py
    32, 128, (1, 2, 2, 2), 2, (16,), 64, None, new_attention_order=True, num_classes=10
  ),
  'adm64': adm_pytorch.ADM_64,
}
RIVALS = {'PyTorch eager': False, 'torch.compile': True}  # whether compiled


def network_and_inputs(reference: adm_pytorch.ADM, batch_size: int) -> tuple:
  """PyTorch's network with random weights, and z (B, H, W, C), t (B,), c (B,) as NumPy arrays."""
  shape = adm_pytorch.ours(reference, 'adm_cosine').image_shape
  z = np.random.default_rng(0).normal(size=(batch_size, *shape)).astype(np.float32)
  t = np.linspace(0, 999, batch_size).astype(int)
  return (
    adm_pytorch.random(reference),
    z,
    t,
    (np.arange(batch_size) % reference.num_classes).astype(np.int32),
  )


def serve_theirs(
  connection: Connection,
  reference: adm_pytorch.ADM,
  batch_size: int,
  compiled: bool,
  device: str,
  dtype: str,
) -> None:
  """PyTorch's process: sends ε and where it is from; then a word for each call it is sent."""
  torch.set_num_threads(ratios.cores())
  theirs, z, t, c = network_and_inputs(reference, batch_size)
  last = theirs.out[2]  # they too give ε only
  last.weight, last.bias = (torch.nn.Parameter(p[:3]) for p in (last.weight, last.bias))
  inputs = [x.to(device) for x in (adm_pytorch.to_torch(z), torch.tensor(t), torch.tensor(c))]
  theirs = theirs.to(device)
  network = torch.compile(theirs) if compiled else theirs
  autocast = torch.autocast(device, torch.bfloat16, enabled=dtype == 'bfloat16')

  def forward():
    with torch.inference_mode(), autocast:
      return network(*inputs)

  def backward():
    theirs.zero_grad()
    with autocast:
      eps = network(*inputs)
    eps.float().square().mean().backward()

  where = f'{torch.get_num_threads()} threads' if device == 'cpu' else torch.cuda.get_device_name()
  connection.send((forward().float().permute(0, 2, 3, 1).cpu().numpy(), where))
  calls = {'forward': forward, 'forward and backward': backward}
  while name := connection.recv():
    calls[name]()
    if device == 'cuda':
      torch.cuda.synchronize()
    connection.send('done')


def measure(
  size: str,
  batch_size: int,
  dtype: str,
  turns: int,
  rivals: Mapping[str, bool] = RIVALS,
) -> list[Row]:
  """How many times as fast ours is as each rival, forward, and forward and backward."""
  reference, device = SIZES[size], 'cpu' if jax.default_backend() == 'cpu' else 'cuda'
  if device == 'cuda' and not torch.cuda.is_available():
    raise UserError('PyTorch sees no GPU: install its build for this one.')
  process = multiprocessing.get_context('spawn')
  connections = {}
  for name, compiled in rivals.items():
    connections[name], theirs_end = process.Pipe()
    arguments = theirs_end, reference, batch_size, compiled, device, dtype
    process.Process(target=serve_theirs, args=arguments, daemon=True).start()
    theirs_end.close()  # so that a rival which fails ends this too

  theirs, z, t, c = network_and_inputs(reference, batch_size)
  network = adm_pytorch.ours(reference, 'adm_cosine', dtype=dtype)
  mesh = sharding.data_mesh()
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  weights = adm_layout.convert(adm_pytorch.tensors_of(theirs), network, heads_first=False)
  params = jax.device_put(weights, everywhere)
  del theirs, weights
  cond = conditioning.given(jnp.asarray(c))
  inputs = jax.device_put((z, np.float32(adm_lambdas('adm_cosine')[t]), cond), split)
  apply = unet.apply_fn(network)

  def gradient(params, *inputs):  # as `train` takes it
    def mean_square(params):
      squares = jnp.square(apply(params, *inputs)).mean((1, 2, 3))
      return squares.mean(), squares

    return jax.grad(mean_square, has_aux=True)(params)

  ours = {
    'forward': jax.jit(apply),
    'forward and backward': jax.jit(sharding.mean_over_devices(gradient, mesh)),
  }
  eps = np.asarray(ours['forward'](params, *inputs))
  print(f'{size}, {dtype}, batch {batch_size}, {jax.device_count()} device(s) of JAX')
  for name, connection in connections.items():
    theirs, where = connection.recv()
    difference = np.abs(eps - theirs).max() / np.abs(theirs).max()
    print(f'{name}: {where}; largest difference of ε {difference:.1e}, relative')

  def ask(connection, name):
    connection.send(name)
    return connection.recv()

  rows, on = [], ratios.on_cores() if device == 'cpu' else dtype
  for name, call in ours.items():
    theirs = [functools.partial(ask, connection, name) for connection in connections.values()]
    own, *taken = ratios.in_turns(turns, functools.partial(call, params, *inputs), *theirs)
    for who, seconds in zip(('ours', *connections), (own, *taken)):
      print(f'{name:21s} {who} {1e3 * np.median(seconds):8.1f} ms')
    rows += [
      Row(f'{size}: {name}, beside {other}, {on}', list(seconds / own))
      for other, seconds in zip(connections, taken)
    ]
  for connection in connections.values():
    connection.send('')
  return rows


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # a GPU's memory is shared
  runtime.setup_jax(given.batch_size, channels=SIZES[given.size].channels)
  ratios.report(measure(given.size, given.batch_size, given.dtype, given.turns))


if __name__ == '__main__':
  flags.DEFINE_enum('size', 'small', list(SIZES), 'The network.')
  flags.DEFINE_integer('batch_size', 64, 'Images at once.')
  flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of both networks.')
  ratios.define_flags(turns=15)
  cli.run(main)
