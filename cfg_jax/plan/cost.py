"""What a run of a config costs: parameters, FLOPs, network calls and memory, by arithmetic.

All is counted on abstract parameters, without memory for any. A FLOP is half a multiply-add.
"""

import copy
import functools
import json
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from cfg_jax import methods, papers
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.data.batches import Batch
from cfg_jax.equations import samplers
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.guidance import pairs, rules
from cfg_jax.methods import classifier, drawing, guides
from cfg_jax.nets import unet
from cfg_jax.plan import devices, flops


def parameters(config: ml_collections.ConfigDict) -> dict[str, int]:
  """The number of parameters of each part of the network, in the order of the computation."""
  network, params = methods.network(config).of(config), _abstract_params(config)['network']
  size = {name: _size(part) for name, part in params.items()}
  mults = getattr(network, 'channel_mults', (1,))  # VDM's network has one resolution
  last = len(mults) - 1
  levels = {way: {} for way in ('down', 'up') if way in params}
  for way in levels:
    for i, stage in params[way].items():
      n = int(i) // (network.num_blocks + 1)  # a level's stages: its blocks, and one that halves
      level = n if way == 'down' else last - n
      height, width = (side >> level for side in network.image_shape[:2])
      name = f'{way}, {height}×{width}, {network.channels * mults[level]} channels'
      levels[way][name] = levels[way].get(name, 0) + _size(stage)
  parts = {'embedding of λ': size['lambda_in'] + size['lambda_out']}
  if 'class_emb' in size:
    parts['embedding of the class'] = size['class_emb']
  parts |= {'first convolution': size['conv_in'], **levels['down'], 'middle': size['middle']}
  if 'head' in size:
    return parts | {'head': size['head']}
  return parts | levels['up'] | {'last norm and convolution': size['norm_out'] + size['conv_out']}


class ImageFlops(NamedTuple):
  """One network call for one image, training on one image, and that with what remat repeats."""

  forward: flops.Flops
  train: flops.Flops
  train_remat: flops.Flops | None  # None where the config does not ask for it


def image_flops(config: ml_collections.ConfigDict) -> ImageFlops:
  """The FLOPs of what a run repeats for every image. Adam and EMA, once a batch, are left out.

  A guided ε̃ is two network calls, or one and a guide's gradient.
  """
  return ImageFlops(
    forward_flops(config),
    train_flops(config, remat=False),
    train_flops(config, remat=True) if config.model.remat else None,
  )


def forward_flops(config: ml_collections.ConfigDict) -> flops.Flops:
  """The FLOPs of one call of the network for one image."""
  config = config_lib.change(config, ['model.remat=false'])
  params, batch = _abstract_params(config)['network'], _abstract_batch(config, 1)
  lam = jax.ShapeDtypeStruct((1,), jnp.float32)
  network = methods.network(config)
  inputs = (batch.x, lam, batch.cond) if methods.draws(config) else (batch.x, lam)
  return flops.count_flops(network.apply_fn(network.of(config)), params, *inputs)


def guide_calls(config: ml_collections.ConfigDict) -> float:
  """What a gradient of the samples' guide costs, in network calls of as many FLOPs; 0 without one.

  Its run must be there, of which the config alone is read.
  """
  folder = guides.folder(config)
  if folder is None or config.sample.guidance.pair not in pairs.CLASSIFIERS:
    return 0.0
  guide = config_lib.of_run(folder)
  key = json.dumps([[c.model.to_dict(), c.data.name] for c in (config, guide)])
  if key not in COUNTED:
    batch, lam = _abstract_batch(guide, 1), jax.ShapeDtypeStruct((1,), jnp.float32)

    def total(params, z, lam, c):
      return jnp.sum(classifier.log_prob(guide, params)(z, lam, c))

    params, inputs = _abstract_params(guide)['network'], (batch.x, lam, batch.cond.value)
    gradient = flops.count_flops(jax.grad(total, argnums=1), params, *inputs)
    COUNTED[key] = gradient.compiler / forward_flops(config).compiler
  return COUNTED[key]


def second_pass(config: ml_collections.ConfigDict) -> float:
  """What a pass with another condition costs, in network calls of as many FLOPs.

  Below 1 where the class enters late (model.late_condition), and the pair takes one network twice.
  """
  if not config.model.get('late_condition') or config.sample.guidance.pair not in pairs.SHARING:
    return 1.0
  key = json.dumps([config.model.to_dict(), config.data.name])
  if key not in COUNTED:
    config = config_lib.change(config, ['model.remat=false'])
    params, batch = _abstract_params(config)['network'], _abstract_batch(config, 1)
    trunk, head = (unet.apply_fn(unet.of(config), part) for part in ('trunk', 'head'))
    features = jax.eval_shape(trunk, params, batch.x, jax.ShapeDtypeStruct((1,), jnp.float32))
    of_head = flops.count_flops(head, params, features, batch.cond)
    COUNTED[key] = of_head.compiler / forward_flops(config).compiler
  return COUNTED[key]


COUNTED: dict[str, float] = {}  # seconds for large networks, and a sweep asks often


def train_flops(config: ml_collections.ConfigDict, *, remat: bool) -> flops.Flops:
  """The FLOPs of training on one image; remat: with what it repeats."""
  config = config_lib.change(config, [f'model.remat={remat}'])
  params = _abstract_params(config)
  return flops.count_flops(jax.value_and_grad(_loss(config)), params, _abstract_batch(config, 1))


def peak_images_per_s(config: ml_collections.ConfigDict) -> float | None:
  """Images/s at which training would take all the devices' published peak; None if there is none.

  Of the model's own FLOPs: what remat repeats is not work done.
  """
  device = devices.of_kind(jax.devices()[0].device_kind)
  try:
    peak = device and jax.device_count() * device.peak_flops(config.model.dtype)
  except UserError:  # it has no such units
    return None
  return peak and peak / train_flops(config, remat=False).compiler


def count_memory(
  config: ml_collections.ConfigDict, images: int, num_devices: int = 1
) -> dict[str, int]:
  """Bytes on each of num_devices that trains on `images` images of a batch, by arithmetic.

  Activations are what the forward pass of a microbatch keeps for the backward pass, as JAX's
  differentiation decides it, and with remat the most that one recomputed stage keeps. Compilers
  fuse some of it away and add scratch space of their own: XLA for a CPU, with the scheduler that
  saves memory, took 0.6 to 1 times as much for activations without remat, 1.2 to 1.7 times with.
  """
  train, params = config.train, _abstract_params(config)
  leaves = jax.tree.leaves(params)
  weights = flops.num_bytes(leaves)
  shared = weights  # of what train.shard_optimizer shares out
  if train.shard_optimizer:
    split = [x for x in leaves if sharding.split_axis(x.shape, num_devices) is not None]
    shared -= flops.num_bytes(split) * (num_devices - 1) // num_devices
  at_once = _abstract_batch(config, images // train.microbatches)
  kept, largest = flops.kept_bytes(_loss(config), params, at_once)
  memory = {
    'parameters, float32': weights,
    'EMA': shared,
    "Adam's two moments": 2 * shared,
    'gradients': weights,
  }
  if train.microbatches > 1:
    memory['gradients, of one microbatch'] = weights
  memory['activations kept for the backward pass'] = kept
  return memory | {'the largest stage, recomputed': largest} if config.model.remat else memory


def columns(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
  """The config of each column of the paper's table of this data set, by the column's name.

  Where the paper has none, the config itself.
  """
  found = papers.DEFAULT.columns(config.data.name)
  changed = {}
  for column in found:
    changed[column.name] = copy.deepcopy(config)
    changed[column.name].update_from_flattened_dict(column.settings)
  return changed or {'sampling': config}


def sampling_calls(config: ml_collections.ConfigDict) -> float:
  """Network calls for all images that a config's section `sample` asks for."""
  w, shared = config.sample.guidance.w, shared_calls(config)
  return config.sample.num_samples * (shared + sum(image_calls(config, x) - shared for x in w))


def image_calls(config: ml_collections.ConfigDict, w: float) -> float:
  """Network calls for one image, at one w; what is not a whole call counts by its FLOPs."""
  guidance, ends = config.sample.guidance, config.diffusion
  lam = samplers.visited(config.sample.sampler, ends.lambda_min, ends.lambda_max)
  knobs = rules.knobs_of(guidance) | {'w': w}
  both = config.sample.sampler.name in samplers.PARTICLES
  classes = registry.of(config.data).num_classes
  network, gradients = pairs.calls_along(guidance.pair, guidance.rule, knobs, lam, both, classes)
  if network > len(lam) and (share := second_pass(config)) < 1:
    network = len(lam) + share * (network - len(lam))
  return network + gradients * (guide_calls(config) if gradients else 0)


def shared_calls(config: ml_collections.ConfigDict) -> int:
  """Those of `image_calls` that are made once for all w that a config asks for."""
  section = config.sample.sampler
  return drawing.shared_steps(config) * (samplers.calls(section) - 1) // (section.num_steps - 1)


def num_models(configs: Iterable[ml_collections.ConfigDict]) -> int:
  """How many models must be trained for configs: those that differ in `sample` alone share one."""
  return len({json.dumps(c.to_dict() | {'sample': None}, sort_keys=True) for c in configs})


def compiled_memory(config: ml_collections.ConfigDict, images: int) -> int:
  """Bytes that the whole training step takes, as XLA compiles it for the device here. Minutes."""
  method = _method(config)
  state = jax.eval_shape(functools.partial(method.init, config.seed))
  step = jax.jit(method.step, donate_argnums=0)
  m = step.lower(state, _abstract_batch(config, images)).compile().memory_analysis()
  held = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
  return held + m.temp_size_in_bytes + m.generated_code_size_in_bytes


def _method(config: ml_collections.ConfigDict) -> methods.Method:
  return methods.make(config, sharding.data_mesh(jax.devices()[:1]))


def _loss(config: ml_collections.ConfigDict) -> Callable:
  """(params, batch) → the loss that training differentiates, with a fixed key."""
  loss = _method(config).loss
  return lambda params, batch: loss(params, batch, jax.random.key(config.seed))


def _abstract_params(config: ml_collections.ConfigDict) -> dict:
  """The shapes of the parameters, which do not depend on remat."""
  return _params_of(
    ml_collections.FrozenConfigDict(config_lib.change(config, ['model.remat=false']))
  )


@functools.cache  # seconds for a large network, and each part of a plan asks for them
def _params_of(config: ml_collections.FrozenConfigDict) -> dict:
  return jax.eval_shape(functools.partial(_method(config).init, config.seed)).params


def _abstract_batch(config: ml_collections.ConfigDict, size: int) -> Batch:
  shape = registry.of(config.data).image_shape
  x = jax.ShapeDtypeStruct((size, *shape), jnp.float32)
  cond = Cond(*(jax.ShapeDtypeStruct((size,), dtype) for dtype in (jnp.int32, bool)))
  return Batch(x, cond)


def _size(part: dict) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))
