"""Our U-Net beside PyTorch's on the same weights: least seconds of each, in turns, in one run.

  python -m experiments.benchmark_unet [--size adm64 --batch_size 2]      (extra [parity])
  taskset -c 0 python -m experiments.benchmark_unet                       on one core

The other network is `adm_pytorch`, eager and by torch.compile (which needs a C++ compiler). All use
the cores that the process may, in float32, each in a process of its own, as it is used alone:
PyTorch does without the memory settings of `runtime.setup_jax`. The gradient is that of the mean
square of ε by all parameters. Prints; asserts nothing.
"""

import functools
import multiprocessing
import os
from multiprocessing.connection import Connection

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import flags

from cfg_jax.core import command as cli
from cfg_jax.core import runtime, sharding
from cfg_jax.equations import conditioning
from cfg_jax.nets import adm_layout, unet
from cfg_jax.nets.embed import adm_lambdas
from experiments import adm_pytorch
from experiments.benchmark import seconds

SIZES = {
  'small': adm_pytorch.ADM(  # that of configs/digits.py
    8, 48, (1, 2), 1, (4,), 48, None, new_attention_order=True, num_classes=10, groups=16
  ),
  'adm64': adm_pytorch.ADM_64,
}


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
  connection: Connection, reference: adm_pytorch.ADM, batch_size: int, compiled: bool
) -> None:
  """PyTorch's process: sends ε and its number of threads; then a word for each call it is sent."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  theirs, z, t, c = network_and_inputs(reference, batch_size)
  last = theirs.out[2]  # they too give ε only
  last.weight, last.bias = (torch.nn.Parameter(p[:3]) for p in (last.weight, last.bias))
  inputs = adm_pytorch.to_torch(z), torch.tensor(t), torch.tensor(c)
  network = torch.compile(theirs) if compiled else theirs

  def forward():
    with torch.inference_mode():
      return network(*inputs)

  def backward():
    theirs.zero_grad()
    network(*inputs).square().mean().backward()

  connection.send((forward().permute(0, 2, 3, 1).numpy(), torch.get_num_threads()))
  calls = {'forward': forward, 'forward and backward': backward}
  while name := connection.recv():
    calls[name]()
    connection.send('done')


def benchmark(reference: adm_pytorch.ADM, batch_size: int) -> None:
  """Prints the three networks' times forward, and forward and backward, for one batch."""
  process = multiprocessing.get_context('spawn')
  connections = {}
  for name, compiled in (('PyTorch eager', False), ('torch.compile', True)):
    connections[name], theirs_end = process.Pipe()
    arguments = theirs_end, reference, batch_size, compiled
    process.Process(target=serve_theirs, args=arguments, daemon=True).start()

  theirs, z, t, c = network_and_inputs(reference, batch_size)
  network = adm_pytorch.ours(reference, 'adm_cosine')
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
  print(f'batch {batch_size}, {jax.device_count()} device(s) of JAX')
  for name, connection in connections.items():
    theirs, threads = connection.recv()
    difference = np.abs(eps - theirs).max() / np.abs(theirs).max()
    print(f'{name}: {threads} threads; largest difference of ε {difference:.1e}, relative')

  def ask(connection, name):
    connection.send(name)
    return connection.recv()

  for name, call in ours.items():
    others = [functools.partial(ask, connection, name) for connection in connections.values()]
    least, *others = seconds(functools.partial(call, params, *inputs), *others)
    print(f'{name:21s} ours {least:8.4f} s')
    for other, taken in zip(connections, others):
      print(f'{"":21s} {other} {taken:8.4f} s: ours is {taken / least:.2f} × as fast')
  for connection in connections.values():
    connection.send('')


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  size, batch_size = flags.FLAGS.size, flags.FLAGS.batch_size
  runtime.setup_jax(batch_size, channels=SIZES[size].channels)
  benchmark(SIZES[size], batch_size)


if __name__ == '__main__':
  flags.DEFINE_enum('size', 'small', list(SIZES), 'The network.')
  flags.DEFINE_integer('batch_size', 64, 'Images at once.')
  cli.run(main)
