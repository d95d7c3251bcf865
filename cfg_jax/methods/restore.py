"""checkpoint → parameters of a run, on the devices of a mesh."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections

from cfg_jax import methods
from cfg_jax.core import sharding
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.core.errors import UserError


def abstract_params(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> dict:
  """The shapes of the parameters, by player."""
  method = methods.make(config, mesh)
  return jax.eval_shape(functools.partial(method.init, config.seed)).params


def restore(
  config: ml_collections.ConfigDict,
  workdir: Path,
  step: int | None,
  mesh: jax.sharding.Mesh,
  name: str = 'ema',
) -> tuple[int, dict]:
  """(step, parameters) of the newest intact checkpoint, or of `step`, on every device.

  name: 'ema' or 'params'. Raises UserError where there is no intact one, or of another network.
  """
  params = abstract_params(config, mesh)
  wanted = {'step': jax.ShapeDtypeStruct((), jnp.int32), name: params}
  checkpoints = Checkpoints(workdir)
  restored = checkpoints.restore(sharding.abstract(wanted, sharding.replicated(mesh)), step)
  checkpoints.close()
  if restored is None:
    raise UserError(f'{workdir} has no checkpoint: train first.')
  return int(restored[0]['step']), restored[0][name]
