"""Who checks which section of a config, as far as training and drawing read it."""

from cfg_jax import methods
from cfg_jax.core import update
from cfg_jax.core.config import Owner
from cfg_jax.data import registry
from cfg_jax.equations import schedules
from cfg_jax.methods import drawing
from cfg_jax.nets import unet

OWNERS: dict[str, Owner] = {
  'data': registry.problems,
  'model': unet.problems,
  'diffusion': schedules.problems,
  'method': methods.problems,
  'train': update.problems,
  'sample': drawing.problems,
}
