"""Our U-Net beside PyTorch's on the same weights: least seconds of either, in turns, in one run.

  python -m experiments.benchmark_unet [--size adm64 --batch_size 2]      (extra [parity])

The other network is the tests' `adm_reference`. Both use all cores, in float32; the gradient is
that of the mean square of ε by all parameters. Prints; asserts nothing.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import flags

from cfg_jax import adm, cli, sharding, train_state
from cfg_jax.embedding import adm_lambdas
from experiments.benchmark import seconds
from tests import adm_reference

SIZES = {
  'small': adm_reference.ADM(  # that of configs/digits.py
    8, 48, (1, 2), 1, (4,), 48, None, new_attention_order=True, num_classes=10, groups=16
  ),
  'adm64': adm_reference.ADM_64,
}


def benchmark(reference: adm_reference.ADM, batch_size: int) -> None:
  """Prints both networks' times forward, and forward and backward, for one batch."""
  theirs = adm_reference.random(reference)
  network = adm_reference.ours(reference, 'adm_cosine')
  mesh = sharding.data_mesh()
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  params = jax.device_put(
    adm.convert(adm_reference.tensors_of(theirs), network, heads_first=False), everywhere
  )
  last = theirs.out[2]  # they too give ε only
  last.weight, last.bias = (torch.nn.Parameter(p[:3]) for p in (last.weight, last.bias))

  z = np.random.default_rng(0).normal(size=(batch_size, *network.image_shape)).astype(np.float32)
  t = np.linspace(0, 999, batch_size).astype(int)
  c = np.arange(batch_size) % network.num_classes
  ours_in = jax.device_put((z, np.float32(adm_lambdas('adm_cosine')[t]), c.astype(np.int32)), split)
  theirs_in = adm_reference.to_torch(z), torch.tensor(t), torch.tensor(c)

  apply = train_state.apply_fn(network)
  forward = jax.jit(apply)

  def gradient(params, *inputs):  # as `train` takes it
    def mean_square(params):
      squares = jnp.square(apply(params, *inputs)).mean((1, 2, 3))
      return squares.mean(), squares

    return jax.grad(mean_square, has_aux=True)(params)

  backward = jax.jit(sharding.mean_over_devices(gradient, mesh))

  def theirs_forward():
    with torch.inference_mode():
      return theirs(*theirs_in)

  def theirs_backward():
    theirs.zero_grad()
    theirs(*theirs_in).square().mean().backward()

  eps = theirs_forward().permute(0, 2, 3, 1).numpy()
  difference = np.abs(forward(params, *ours_in) - eps).max() / np.abs(eps).max()
  print(
    f'batch {batch_size}, {jax.device_count()} device(s) of JAX, {torch.get_num_threads()} '
    f'threads of PyTorch; largest difference of ε {difference:.1e}, relative'
  )
  for name, ours_call, theirs_call in (
    ('forward', functools.partial(forward, params, *ours_in), theirs_forward),
    ('forward and backward', functools.partial(backward, params, *ours_in), theirs_backward),
  ):
    a, b = seconds(ours_call, theirs_call)
    print(f'{name:21s} ours {a:8.4f} s, PyTorch {b:8.4f} s: ours is {b / a:.2f} × as fast')


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  size, batch_size = flags.FLAGS.size, flags.FLAGS.batch_size
  sharding.setup_jax(batch_size)
  benchmark(SIZES[size], batch_size)


if __name__ == '__main__':
  flags.DEFINE_enum('size', 'small', list(SIZES), 'The network.')
  flags.DEFINE_integer('batch_size', 64, 'Images at once.')
  cli.run(main)
