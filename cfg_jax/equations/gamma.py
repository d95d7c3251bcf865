"""Schedules that are learned: VDM's γ_η(t) = −λ, increasing in t ∈ [0, 1], and their gradient.

Parameters are a dict: 'ends', which the bound depends on, and 'interior', which in continuous time
only its variance does (Kingma et al. 2021, section 5.1, appendices H and I).

  fixed     none of both: linear in t between the ends that it is given
  linear    'ends': γ_0 + |span| t
  network   both: γ_0 + |span| η(t), η a monotone network normalised to η(0) = 0, η(1) = 1
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cfg_jax.equations import bound

SCHEDULES = ('fixed', 'linear', 'network')
UNITS = 1024  # of the network's hidden layer, appendix H
Params = dict[str, Any]


def init(key: jax.Array, schedule: str, gamma_0: float, gamma_1: float) -> Params:
  """The parameters that a schedule begins with, at these ends; {} of a fixed one.

  The network's weights begin near 0, so that it is nearly linear in t. Raises ValueError where the
  ends are reversed.
  """
  if not gamma_0 < gamma_1:
    raise ValueError(f'gamma_0={gamma_0} must be less than gamma_1={gamma_1}: γ rises with noise.')
  if schedule == 'fixed':
    return {}
  ends = {'gamma_0': jnp.float32(gamma_0), 'span': jnp.float32(gamma_1 - gamma_0)}
  if schedule == 'linear':
    return {'ends': ends}
  k_2, k_3 = jax.random.split(key)
  interior = {
    'w_1': jnp.float32(gamma_1 - gamma_0),
    'b_1': jnp.float32(gamma_0),
    'w_2': 0.01 * jax.random.normal(k_2, (UNITS,)),
    'b_2': jnp.zeros(UNITS),
    'w_3': 0.01 * jax.random.normal(k_3, (UNITS,)),
  }
  return {'ends': ends, 'interior': interior}


def gamma(params: Params, t: jax.Array, ends: tuple[float, float]) -> jax.Array:
  """γ_η(t), of the shape of t. ends: γ_0 and γ_1 of a fixed schedule."""
  eta = unit(params['interior'], t) if 'interior' in params else t
  if 'ends' not in params:
    return ends[0] + (ends[1] - ends[0]) * eta
  return params['ends']['gamma_0'] + jnp.abs(params['ends']['span']) * eta


def at_ends(params: Params, ends: tuple[float, float]) -> tuple[jax.Array, jax.Array]:
  """γ_0 and γ_1, scalars, whose gradient knows the ends alone."""
  of_ends = {k: v for k, v in params.items() if k == 'ends'}
  return gamma(of_ends, jnp.zeros(()), ends), gamma(of_ends, jnp.ones(()), ends)


def unit(interior: Params, t: jax.Array) -> jax.Array:
  """η(t) = (γ̃(t) − γ̃(0))/(γ̃(1) − γ̃(0)), γ̃ = l_1(t) + l_3(φ(l_2(l_1(t)))), with positive weights.

  φ is the sigmoid, l_1 and l_3 have one unit, l_2 has 1024. Appendix H. Shape of t.
  """

  def tilde(t):
    first = jnp.abs(interior['w_1']) * t + interior['b_1']
    hidden = jnp.abs(interior['w_2']) * first[..., None] + interior['b_2']
    return first + jax.nn.sigmoid(hidden) @ jnp.abs(interior['w_3'])

  low, high = tilde(jnp.zeros(())), tilde(jnp.ones(()))
  return (tilde(t) - low) / (high - low)


def lambda_grid(params: Params, num_steps: int, ends: tuple[float, float]) -> jax.Array:
  """The λ at evenly spaced t from 1 to 0, as VDM draws: (T,), increasing, T = num_steps ≥ 2."""
  return -gamma(params, jnp.linspace(1, 0, num_steps), ends)


def rates(
  params: Params, t: jax.Array, ends: tuple[float, float], num_steps: int | None
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
  """`bound.rates` twice: as it depends on the ends alone, and on the interior alone."""
  return tuple(
    bound.rates(lambda t, p=p: gamma(p, t, ends), t, num_steps)
    for p in (_held(params, 'interior'), _held(params, 'ends'))
  )


def _held(params, name):
  return {k: jax.lax.stop_gradient(v) if k == name else v for k, v in params.items()}


def variance_minimising(loss: Callable) -> Callable:
  """The same loss, under whose mean the interior of the schedule descends the mean of its square.

  loss: (params, (gamma, rate), *samples) → L (B,), each sample's of its own. Returns a function
  (params, of_ends, of_interior, *samples) → L, the two as from `rates`. The mean of L does not
  depend on the interior in continuous time, so ∇E[L²] is the gradient of its variance; and ∇L² =
  2 L ∇L, so one ordinary backward pass gives both. Appendix I.2.
  """

  @jax.custom_vjp
  def split(params, of_ends, of_interior, *samples):
    del of_interior  # the same numbers as of_ends
    return loss(params, of_ends, *samples)

  def forward(params, of_ends, of_interior, *samples):
    del of_interior
    value, pull = jax.vjp(lambda *args: loss(*args, *samples), params, of_ends)
    return value, (value, pull, len(samples))

  def backward(kept, cotangent):
    value, pull, n = kept
    d_params, d_ends = pull(cotangent)
    d_interior = jax.tree.map(lambda d: 2 * value * d, d_ends)
    return d_params, d_ends, d_interior, *[None] * n

  split.defvjp(forward, backward)
  return split
