"""What can be trained: a method is one file that reads as its paper, and a line of `METHODS`."""

import functools
from types import ModuleType

import jax
import ml_collections

from cfg_jax.core.config import Context, Problems
from cfg_jax.methods import classifier, classifier_free, vdm
from cfg_jax.methods.method import Method, Request

__all__ = ['METHODS', 'Method', 'Request', 'abstract_params', 'make', 'problems']

METHODS: dict[str, ModuleType] = {
  'classifier_free': classifier_free,
  'classifier': classifier,
  'vdm': vdm,
}


def make(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Method:
  """The method that config.method names, whose step runs on the devices of the mesh."""
  return METHODS[config.method.name].make(config, mesh)


def abstract_params(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> dict:
  """The shapes of the parameters, by player."""
  return jax.eval_shape(functools.partial(make(config, mesh).init, config.seed)).params


def network(config: ml_collections.ConfigDict) -> ModuleType:
  """The file of nets/ whose network the config's section `model` is of."""
  return network_of(METHODS[config.method.name], config)


def network_of(method: ModuleType, config: ml_collections.ConfigDict) -> ModuleType:
  """The file of nets/ that a method's file has, the only one or by the config."""
  return method.NETWORK if hasattr(method, 'NETWORK') else method.network(config)


def learns_grid(config: ml_collections.ConfigDict) -> bool:
  """Whether sample.sampler.grid may be `learned`: the method has a schedule of its own."""
  method = config.get('method')
  return getattr(METHODS.get(method and method.get('name')), 'LEARNS_GRID', False)


def draws(config: ml_collections.ConfigDict) -> bool:
  """Whether samples can be drawn by the method: else its config has no `sample`, no `evaluate`."""
  method = config.get('method')
  return getattr(METHODS.get(method and method.get('name')), 'DRAWS', True)


def model_problems(model: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `model`: (field, remedy)."""
  method = context.config.get('method')
  named = METHODS.get(method and method.get('name'), classifier_free)
  yield from network_of(named, context.config).problems(model, context)


def problems(method: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `method`: (field, remedy)."""
  if method.get('name') not in METHODS:
    yield 'name', f'is none of {", ".join(METHODS)}'
    return
  yield from METHODS[method.name].problems(method, context)
