"""Parameters and a pure function of an NNX network: a class that is built of (config, rngs)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


def num_parameters(network: type[nnx.Module], config: Any) -> int:
  """The number of parameters, from shapes alone: no memory is touched."""
  abstract = nnx.eval_shape(lambda: network(config, nnx.Rngs(0)))
  return sum(p.size for p in jax.tree.leaves(nnx.state(abstract, nnx.Param)))


def create_params(network: type[nnx.Module], config: Any, seed: int) -> dict[str, Any]:
  """Parameters from seed, as a plain pytree. Trace under `jax.jit` or `jax.eval_shape`."""
  return nnx.to_pure_dict(nnx.state(network(config, nnx.Rngs(jax.random.key(seed))), nnx.Param))


@functools.cache  # seconds for a large network
def apply_fn(network: type[nnx.Module], config: Any, part: str = '__call__') -> Callable:
  """(params, *inputs) → what the network's method `part` says of inputs; config is hashable."""
  graph, abstract = nnx.split(nnx.eval_shape(lambda: network(config, nnx.Rngs(0))))

  def apply(params, *inputs, **named):
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, params)
    return getattr(nnx.merge(graph, state), part)(*inputs, **named)

  return apply
