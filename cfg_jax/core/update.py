"""A gradient step of one network: microbatches, mean over the devices, clipping, Adam."""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from cfg_jax.core import config as config_lib
from cfg_jax.core import fields, sharding
from cfg_jax.core.fields import BELOW_1, TINY, Field

MOST = 10**9  # of steps: a step is an int32
FIELDS = {
  'batch_size': Field(int, 1, 2**24),
  'microbatches': Field(int, 1, 2**24),
  'shard_optimizer': Field(bool),
  'num_steps': Field(int, 1, MOST),
  'learning_rate': Field(float, TINY, 1e3, 'must be positive, at most 1000'),
  'warmup_steps': Field(int, 0, MOST),
  'adam_b1': Field(float, 0, BELOW_1, 'must be in [0, 1)'),
  'adam_b2': Field(float, 0, BELOW_1, 'must be in [0, 1)'),
  'grad_clip': Field(float, TINY, says='must be positive; inf does not clip'),
  'ema_decay': Field(float, 0, BELOW_1, 'must be in [0, 1)'),
  'log_every': Field(int, 1, MOST),
  'sample_every': Field(int, 0, MOST),
  'checkpoint_every': Field(int, 1, MOST),
  'keep_checkpoints': Field(int, 1, MOST),
  'weight_decay': Field(float, 0, 1e3, 'must be 0 to 1000; ADM has 0.05 and 0.2', may_lack=True),
  'rate_decay': Field(str, may_lack=True),
}
# Fields that configs may leave out: see `make_optimizer`.
config_lib.FIT['train'] = lambda train: {'weight_decay': 0.0, 'rate_decay': 'none'} | train


class Descended(NamedTuple):
  """What a step leaves: new parameters and optimizer state, the losses, the gradient's norm.

  The norm is that before clipping.
  """

  params: Any
  opt_state: Any
  losses: Any
  grad_norm: jax.Array


def make_optimizer(
  train: ml_collections.ConfigDict, decays: Callable[[Any], Any] | None = None
) -> optax.GradientTransformation:
  """Adam with a constant rate after a linear warm-up, on gradients clipped by their global norm.

  train.rate_decay='linear' multiplies the rate by 1 − step / num_steps (step = 0, 1, …), and
  train.weight_decay makes it AdamW (Loshchilov & Hutter 2019): both as ADM trains classifiers.
  decays: params → a bool for each, whether it decays; all do by default.
  """
  steps = max(train.warmup_steps, 1)  # of 0 steps optax makes a rate of 0; 1 is none, see below
  warm = optax.schedules.warmup_constant_schedule(0.0, train.learning_rate, steps)

  def rate(count):
    left = 1 - count / train.num_steps if train.get('rate_decay') == 'linear' else 1
    return warm(count + 1) * left

  betas = {'b1': train.adam_b1, 'b2': train.adam_b2}
  if decay := train.get('weight_decay', 0.0):
    adam = optax.adamw(rate, **betas, weight_decay=decay, mask=decays)
  else:
    adam = optax.adam(rate, **betas)
  return optax.chain(optax.clip_by_global_norm(train.grad_clip), adam)


def by_player(
  optimizers: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
  """The optimizer of several players' parameters, a dict, each with its own and its own state."""

  def init(params):
    return {name: optimizers[name].init(params[name]) for name in params}

  def update(grads, state, params):
    each = {name: optimizers[name].update(grads[name], state[name], params[name]) for name in grads}
    return {name: u for name, (u, _) in each.items()}, {name: s for name, (_, s) in each.items()}

  return optax.GradientTransformation(init, update)


def descent(
  losses: Callable,
  optimizer: optax.GradientTransformation,
  microbatches: int,
  mesh: jax.sharding.Mesh,
) -> Callable[..., Descended]:
  """A step down the mean of losses: (params, opt_state, *samples) → `Descended`.

  losses: (params, *samples) → (B,), or a tree of such, whose sum is descended; the samples are
  trees of arrays (B, …). Neither the devices of the mesh nor the number of microbatches change the
  result, but for rounding.
  """

  def mean(params, *samples):
    each = losses(params, *samples)
    return functools.reduce(operator.add, map(jnp.mean, jax.tree.leaves(each))), each

  gradient = in_microbatches(jax.grad(mean, has_aux=True), microbatches)
  gradient = sharding.mean_over_devices(gradient, mesh)

  def descend(params, opt_state, *samples):
    grads, each = gradient(params, *samples)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    return Descended(params, opt_state, each, optax.tree.norm(grads))

  return descend


def in_microbatches(gradient: Callable, n: int) -> Callable:
  """The same function for batches of which the devices can hold the activations of an nth only.

  gradient: (params, *samples) → (mean gradient, losses, a tree of (B,)), called n times with B/n
  samples, which are trees of arrays (B, …).
  """
  if n == 1:
    return gradient

  def accumulated(params, *samples):
    parts = jax.tree.map(lambda x: x.reshape(n, -1, *x.shape[1:]), samples)

    def add(total, part):
      grads, losses = gradient(params, *part)
      return jax.tree.map(jnp.add, total, grads), losses

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, losses = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda g: g / n, total), jax.tree.map(jnp.ravel, losses)

  return accumulated


def problems(train: ml_collections.ConfigDict, context: config_lib.Context) -> config_lib.Problems:
  """What is wrong with the config's section `train`: (field, remedy)."""
  wrong = dict(fields.problems(train, FIELDS))
  yield from wrong.items()
  if 'rate_decay' not in wrong and train.get('rate_decay', 'none') not in ('none', 'linear'):
    yield 'rate_decay', "must be 'none' or 'linear'"
  if wrong.keys() & {'batch_size', 'microbatches'}:
    return
  for remedy in fields.splits(train.batch_size, context.num_devices):
    yield 'batch_size', remedy
  each, rest = divmod(train.batch_size, context.num_devices)
  if not rest and each % train.microbatches:
    fits = [n for n in range(1, train.microbatches + 1) if each % n == 0]
    yield 'microbatches', f'must divide the {each} images of a device; try {fits[-1]}'
