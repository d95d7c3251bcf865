"""Who checks which section of a config: all of them."""

import ml_collections

from cfg_jax.core.config import Owner
from cfg_jax.evaluate import extractors
from cfg_jax.methods import owners

OWNERS: dict[str, Owner] = owners.OWNERS | {'evaluate': extractors.problems}


def of(config: ml_collections.ConfigDict) -> dict[str, Owner]:
  """Those whose sections the config must have: see `methods.owners.of`."""
  return owners.of(config, OWNERS)
