"""Who checks which section of a config: all of them."""

from cfg_jax.core.config import Owner
from cfg_jax.evaluate import extractors
from cfg_jax.methods import owners

OWNERS: dict[str, Owner] = owners.OWNERS | {'evaluate': extractors.problems}
