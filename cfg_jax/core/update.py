"""A gradient step: microbatches, mean over the devices, clipping, Adam."""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from cfg_jax.core import config as config_lib
from cfg_jax.core import fields, sharding
from cfg_jax.core.fields import BELOW_1, TINY, Field
from cfg_jax.core.state import Mean, TrainState

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
config_lib.OPTIONAL |= {'train.weight_decay': 0.0, 'train.rate_decay': 'none'}


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


def descent(
  losses: Callable,
  optimizers: Mapping[str, optax.GradientTransformation],
  train: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, Any, dict[str, Mean]]]:
  """A training step down the mean of losses: (state, *samples) → (new state, losses, metrics).

  losses: (params, *samples) → (B,), or a tree of such, whose sum is descended; the samples are
  trees of arrays (B, …). Neither the devices of the mesh nor train.microbatches change the result,
  but for rounding. Each player has its own of the optimizers; the metric grad_norm is of all
  gradients, before clipping.
  """

  def mean(params, *samples):
    each = losses(params, *samples)
    return jnp.mean(_sum(each)), each

  gradient = in_microbatches(jax.grad(mean, has_aux=True), train.microbatches)
  gradient = sharding.mean_over_devices(gradient, mesh)

  def step(state, *samples):
    grads, each = gradient(state.params, *samples)
    params, opt_state = {}, {}
    for name, before in state.params.items():
      updates, opt_state[name] = optimizers[name].update(grads[name], state.opt_state[name], before)
      params[name] = optax.apply_updates(before, updates)
    ema = optax.incremental_update(params, state.ema, 1 - train.ema_decay)
    metrics = {'loss': Mean(jnp.mean(_sum(each)), 1), 'grad_norm': Mean(optax.tree.norm(grads), 1)}
    return TrainState(state.step + 1, params, ema, opt_state), each, metrics

  return step


def _sum(losses):
  return functools.reduce(operator.add, jax.tree.leaves(losses))


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
