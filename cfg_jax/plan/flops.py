"""What a function costs, counted on abstract arguments without running it: FLOPs, bytes kept."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core import primitives


class Flops(NamedTuple):
  """FLOPs of one call, counted twice.

  compiler: XLA's cost analysis of the program for a TPU (a CPU has products for some convolutions,
  see `convolution`): every operation, without those of a convolution that meet its padding.
  convolutions, attention: exact, from the jaxpr, with those; attention is the two products QKᵀ and
  PV, the other matrix products are in convolutions.
  """

  compiler: float
  convolutions: int
  attention: int


def count_flops(f: Callable, *args: Any) -> Flops:
  """FLOPs of f(*args); args are arrays or `jax.ShapeDtypeStruct`s."""
  traced = jax.jit(f).trace(*args)
  analysis = traced.lower(lowering_platforms=('tpu',)).cost_analysis()
  return Flops(analysis['flops'], *_products(traced.jaxpr.jaxpr))


def _products(jaxpr: core.Jaxpr) -> tuple[int, int]:
  """FLOPs of the convolutions and unbatched matrix products, and of the batched ones."""
  total = [0, 0]
  for eqn in jaxpr.eqns:
    repeat = 1
    if eqn.primitive is primitives.conv_general_dilated_p:
      kernel = eqn.invars[1].aval.shape
      out_features = kernel[eqn.params['dimension_numbers'].rhs_spec[0]]
      total[0] += 2 * eqn.outvars[0].aval.size * math.prod(kernel) // out_features
    elif eqn.primitive is primitives.dot_general_p:
      (contract, _), (batch, _) = eqn.params['dimension_numbers']
      depth = math.prod(eqn.invars[0].aval.shape[i] for i in contract)
      total[bool(batch)] += 2 * eqn.outvars[0].aval.size * depth
    elif eqn.primitive is primitives.scan_p:
      repeat = eqn.params['length']
    inner = [_products(jaxpr) for jaxpr in core.jaxprs_in_params(eqn.params)]
    if eqn.params.get('branches_platforms'):
      inner = inner[-1:]  # an accelerator's, see `_new_bytes`
    elif eqn.primitive is primitives.cond_p:
      inner = [max(inner, key=sum)]  # the dearest branch
    total = [n + repeat * sum(m) for n, m in zip(total, zip(*inner))] if inner else total
  return total[0], total[1]


def kept_bytes(f: Callable, params: Any, *args: Any) -> tuple[int, int]:
  """Bytes that f's forward pass keeps beside its inputs, and the most inside one `jax.checkpoint`.

  Differentiation is with respect to params.
  """
  forward = jax.make_jaxpr(f)(params, *args)
  stages = [eqn for eqn in forward.eqns if eqn.primitive is primitives.remat_p]

  def residuals(params, *args):
    return jax.tree.leaves(jax.vjp(lambda params: f(params, *args), params)[1])

  kept = _new_bytes(jax.make_jaxpr(residuals)(params, *args))
  return kept, max(map(_kept_inside, stages), default=0)


def _kept_inside(eqn: core.JaxprEqn) -> int:
  """Bytes that a checkpointed stage keeps while it is differentiated."""
  inner = core.jaxpr_as_fun(core.ClosedJaxpr(eqn.params['jaxpr'], ()))
  args = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
  real = [i for i, arg in enumerate(args) if jnp.issubdtype(arg.dtype, jnp.floating)]

  def residuals(*args):
    def stage(*values):
      merged = list(args)
      for i, value in zip(real, values):
        merged[i] = value
      return inner(*merged)

    return jax.tree.leaves(jax.vjp(stage, *(args[i] for i in real))[1])

  return _new_bytes(jax.make_jaxpr(residuals)(*args))


def _new_bytes(closed: core.ClosedJaxpr) -> int:
  """Bytes of a jaxpr's outputs, each once, without inputs that it only hands through.

  Where the platform chooses a branch, those of the last one, which is an accelerator's: what only
  other branches keep is a constant in it.
  """
  skipped = {id(v) for v in closed.jaxpr.invars}
  for eqn in closed.jaxpr.eqns:
    if eqn.params.get('branches_platforms'):
      branch = eqn.params['branches'][-1].jaxpr
      kept = _dependent(branch)
      skipped |= {id(v) for v, inside in zip(eqn.outvars, branch.outvars) if id(inside) not in kept}
  outputs = {id(v): v.aval for v in closed.jaxpr.outvars if not isinstance(v, core.Literal)}
  return num_bytes(aval for name, aval in outputs.items() if name not in skipped)


def _dependent(jaxpr: core.Jaxpr) -> set[int]:
  """Ids of a jaxpr's variables that depend on its inputs."""
  found = {id(v) for v in jaxpr.invars}
  for eqn in jaxpr.eqns:
    if any(id(v) in found for v in eqn.invars):
      found |= {id(v) for v in eqn.outvars}
  return found


def num_bytes(arrays: Iterable) -> int:
  """Bytes of arrays or `jax.ShapeDtypeStruct`s."""
  return sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays)
