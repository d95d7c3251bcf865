"""The paper's rule, and what w is."""

import jax

from cfg_jax.equations import diffusion
from cfg_jax.equations.diffusion import Prediction


def guided_eps(eps_cond: jax.Array, eps_uncond: jax.Array, w: float | jax.Array) -> jax.Array:
  """ε̃ = (1 + w) ε(z, c) − w ε(z). Section 3, equation 6; Algorithm 2.

  eps_cond, eps_uncond: (B, …); w: a scalar, or (B,) for one strength a sample. Returns (B, …).
  """
  w = diffusion.over_batch(w, eps_cond)
  return (1 + w) * eps_cond - w * eps_uncond


def w_from_scale(s: float | jax.Array) -> float | jax.Array:
  """W = s − 1, for the scale s (or γ) of the other literature, where 1 means no guidance."""
  return s - 1


def classifier_free(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
) -> tuple[Prediction, jax.Array]:
  """The paper's rule: `guided_eps` of the two ε. Algorithm 2."""
  eps = guided_eps(towards.eps, away.eps, w)
  return Prediction(diffusion.predict_x(z, eps, lam), eps), memory
