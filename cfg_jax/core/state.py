"""Everything that training changes, as one plain pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from cfg_jax.core import sharding
from cfg_jax.nets import unet


class TrainState(NamedTuple):
  """The state after `step` optimizer steps. No key: randomness is a function of the step."""

  step: jax.Array  # int32 scalar
  params: Any
  ema: Any  # exponential moving average of params, what samples are drawn with
  opt_state: optax.OptState


def create_params(network: unet.UNetConfig, seed: int) -> dict[str, Any]:
  """Parameters from seed, as a plain pytree. Trace under `jax.jit` or `jax.eval_shape`."""
  return nnx.state(unet.UNet(network, nnx.Rngs(seed)), nnx.Param).to_pure_dict()


def create(
  network: unet.UNetConfig, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
  """The state at step 0, with parameters from seed. Trace under `jax.jit` to place it."""
  params = create_params(network, seed)
  ema = jax.tree.map(jnp.copy, params)  # a copy: donated buffers must not be shared
  return TrainState(jnp.int32(0), params, ema, optimizer.init(params))


def shardings(state: TrainState, mesh: jax.sharding.Mesh, shard_optimizer: bool) -> TrainState:
  """Where each array of a (perhaps abstract) state lies: all of it on every device, or, of the
  optimizer's state and EMA, a part on each (stage 1 of ZeRO, Rajbhandari et al. 2020).
  """
  placed = jax.tree.map(lambda x: sharding.replicated(mesh), state)
  if shard_optimizer:
    shared = sharding.shared_out({'ema': state.ema, 'opt_state': state.opt_state}, mesh)
    placed = placed._replace(**shared)
  return placed


def apply_fn(network: unet.UNetConfig):
  """ε_θ as a pure function: (params, z, lam, c, keys=None) → ε; see `unet.UNet.__call__`."""
  graph, abstract = nnx.split(nnx.eval_shape(lambda: unet.UNet(network, nnx.Rngs(0))))

  def apply(params, z, lam, c, keys=None):
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)(z, lam, c, keys)

  return apply
