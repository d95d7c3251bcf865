"""Everything that training changes, as one plain pytree, and what a step tells of itself."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cfg_jax.core import sharding


class TrainState(NamedTuple):
  """The state after `step` optimizer steps. No key: randomness is a function of the step.

  params, ema and opt_state are dicts by player: of the networks that a method trains, each by its
  name.
  """

  step: jax.Array  # int32 scalar
  params: dict[str, Any]
  ema: dict[str, Any]  # exponential moving average of params, what samples are drawn with
  opt_state: dict[str, Any]


class Mean(NamedTuple):
  """A metric of a step, which is added up over steps and then divided: total / count."""

  total: jax.Array
  count: jax.Array | int


def create(
  params: dict[str, Any], optimizers: dict[str, optax.GradientTransformation]
) -> TrainState:
  """The state at step 0, of the players' parameters. Trace under `jax.jit` to place it.

  optimizers: by player; those of players that there are not are left out.
  """
  ema = jax.tree.map(jnp.copy, params)  # a copy: donated buffers must not be shared
  opt_state = {name: optimizers[name].init(params[name]) for name in params}
  return TrainState(jnp.int32(0), params, ema, opt_state)


def shardings(state: TrainState, mesh: jax.sharding.Mesh, shard_optimizer: bool) -> TrainState:
  """Where each array of a (perhaps abstract) state lies: all of it on every device, or, of the
  optimizer's state and EMA, a part on each (stage 1 of ZeRO, Rajbhandari et al. 2020).
  """
  placed = jax.tree.map(lambda x: sharding.replicated(mesh), state)
  if shard_optimizer:
    shared = sharding.zero1({'ema': state.ema, 'opt_state': state.opt_state}, mesh)
    placed = placed._replace(**shared)
  return placed
