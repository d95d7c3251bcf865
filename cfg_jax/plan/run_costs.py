"""What a run of a config costs: parameters, FLOPs, network calls and memory, by arithmetic.

All is counted on abstract parameters, without memory for any. A FLOP is half a multiply-add.
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

from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core import state as train_state
from cfg_jax.equations import objectives as objective
from cfg_jax.nets import unet
from cfg_jax.papers import tables as paper
from cfg_jax.plan import flops as costs


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
