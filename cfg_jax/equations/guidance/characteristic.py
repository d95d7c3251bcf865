"""Characteristic guidance: the exact score of the noised tilt, on Gaussians. A reference."""

from typing import Any

import jax
import jax.numpy as jnp

from cfg_jax.equations import conditioning, diffusion
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance.pairs import EpsFn, Pair


def characteristic(eps_fn: EpsFn, cond: Cond, w: float | jax.Array, iterations: int = 6) -> Pair:
  """ε(z + w d, c) and ε(z + (1 + w) d), d = σ (ε(z + (1 + w) d) − ε(z + w d, c)). 2312.07586.

  Zheng & Lan 2023, without their projection. Give the rule `classifier_free` the same w: then ε̃ is
  the noise of p̃ ∝ p(x|c)^{1+w} p(x)^{−w} itself, diffused, where all are centred Gaussians; else it
  is nearer to that than classifier-free guidance, while d converges. It calls the model at other z
  than its own, so it is a pair, and knows w. iterations: of Anderson's acceleration of depth one,
  per sample, two network calls each, beside two for what is returned. Others as for `pairs.null`.
  """

  def sides(z, lam, d):
    at = diffusion.over_batch(w, z)
    both = jnp.concatenate([z + at * d, z + (1 + at) * d])
    conds = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), cond, conditioning.null(cond))
    return jnp.split(eps_fn(both, jnp.concatenate([lam, lam]), conds), 2)

  def pair(z, lam, alone: Any = False):
    del alone  # where w = 0, d changes `away` alone, which then counts for nothing
    _, sigma = diffusion.alpha_sigma(diffusion.over_batch(lam, z))
    axes = tuple(range(1, z.ndim))

    def missing(d):
      c, u = sides(z, lam, d)
      return sigma * (u - c) - d

    def improve(carry, _):
      d, f, d_before, f_before = carry
      df = f - f_before
      size = jnp.sum(df**2, axes, keepdims=True)
      gamma = jnp.sum(f * df, axes, keepdims=True) / jnp.where(size > 0, size, 1)
      new = d + f - gamma * (d - d_before + df)
      return (new, missing(new), d, f), None

    none = jnp.zeros_like(z)
    first = missing(none)
    (d, *_), _ = jax.lax.scan(
      improve, (first, missing(first), none, first), length=max(iterations - 2, 0)
    )
    c, u = sides(z, lam, d)
    return tuple(Prediction(diffusion.predict_x(z, eps, lam), eps) for eps in (c, u))

  return pair
