"""Feedback guidance: the less a path says of the condition, the more it is guided."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance.classifier_free import classifier_free
from cfg_jax.equations.guidance.w_of_lambda import progress

MOST = 3.0  # of ℓ, as in the authors' code


class State(NamedTuple):
  """What `feedback` remembers of a call, (B,) each; zeros at first."""

  ell: jax.Array  # ℓ
  told: jax.Array  # the path's log p(c|z)/p(c)
  p: jax.Array  # `progress`


def feedback(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: tuple[State, jax.Array],
  *,
  w: float | jax.Array,
  pi: float | jax.Array = 0.999,
  temperature: float | jax.Array = 1.0,
  offset: float | jax.Array = -14.6,
) -> tuple[Prediction, State]:
  """Scale e^ℓ/(e^ℓ − (1 − π)), at most 1 + w. Koulischer et al. 2025 (2506.06085).

  Right for a network that has π p(x|c) + (1 − π) p(x) in place of p(x|c), where e^ℓ is its
  p(c|z)/p(c). ℓ begins at 0, and a step adds τ (log p(z'|z, c) − log p(z'|z)) + δ; it is kept where
  the scale is at most 1 + w, and at most 3. π in (0, 1); temperature τ ≥ 0; offset: all δ together,
  each by its step's share of the paper's grid. τ = 1 and δ = 0 are Bayes' rule. The offset at first
  is the authors', by which a path that says nothing of c has a scale of 3 after 44 % of the steps;
  their τ is about 0.01, on latents. memory: (of the last call, log p(c|z)/p(c) by the path), from a
  solver of `samplers.TELLING`. Two network calls a step.
  """
  last, told = memory
  p, _ = progress(lam)
  log_rest = jnp.log1p(-jnp.asarray(pi))
  least = log_rest + jnp.log1p(1 / jnp.asarray(w))  # infinite where w = 0
  ell = last.ell + temperature * (told - last.told) + offset * (p - last.p)
  ell = jnp.maximum(jnp.minimum(ell, MOST), least)
  less_1 = 1 / jnp.expm1(ell - log_rest)  # the scale, less 1
  prediction, _ = classifier_free(towards, away, z, lam, memory, w=less_1)
  return prediction, State(ell, told, p)


def at_first(z: jax.Array) -> State:
  """What it remembers of z (B, …) before the first step."""
  return State(*[jnp.zeros(len(z), z.dtype)] * 3)
