"""What can be trained: a method is one file that reads as its paper, and a line of `METHODS`."""

from types import ModuleType

import jax
import ml_collections

from cfg_jax.core.config import Context, Problems
from cfg_jax.methods import classifier_free
from cfg_jax.methods.method import Method, Request

__all__ = ['METHODS', 'Method', 'Request', 'make', 'problems']

METHODS: dict[str, ModuleType] = {'classifier_free': classifier_free}


def make(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Method:
  """The method that config.method names, whose step runs on the devices of the mesh."""
  return METHODS[config.method.name].make(config, mesh)


def problems(method: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `method`: (field, remedy)."""
  if method.get('name') not in METHODS:
    yield 'name', f'is none of {", ".join(METHODS)}'
    return
  yield from METHODS[method.name].problems(method, context)
