"""Who checks which section of a config, as far as training and drawing read it."""

import ml_collections

from cfg_jax import methods
from cfg_jax.core import update
from cfg_jax.core.config import Owner
from cfg_jax.data import registry
from cfg_jax.equations import schedules
from cfg_jax.methods import drawing

OWNERS: dict[str, Owner] = {
  'data': registry.problems,
  'model': methods.model_problems,
  'diffusion': schedules.problems,
  'method': methods.problems,
  'train': update.problems,
  'sample': drawing.problems,
}


def of(config: ml_collections.ConfigDict, owners: dict[str, Owner] = OWNERS) -> dict[str, Owner]:
  """Those whose sections the config must have: of a method that draws nothing, all but two."""
  left_out = () if methods.draws(config) else ('sample', 'evaluate')
  return {name: owner for name, owner in owners.items() if name not in left_out}
