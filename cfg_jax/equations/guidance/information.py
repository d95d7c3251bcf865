"""What z_λ tells of the condition, by λ: from data and noise alone.

½ E‖ε(z_λ, c) − ε(z_λ)‖² dλ over the z_λ of a class adds up to KL(p(x|c) ‖ p(x)), and over all
classes to the mutual information I(x; c), at most the entropy of c (Guo, Shamai & Verdú 2005).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.equations import diffusion
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.guidance import pairs


class Profile(NamedTuple):
  """Of each sample at one uniform λ of each bin, in nats for dλ: (B, M).

  Both have one mean if the predictions are right. Else `apart` has that of their errors too, and
  `gain` is less by what c costs in errors, and more by what ∅ does.
  """

  apart: jax.Array  # ½‖ε(z_λ, c) − ε(z_λ)‖²
  gain: jax.Array  # ½‖ε − ε(z_λ)‖² − ½‖ε − ε(z_λ, c)‖²: how much less the loss is with the class


def profile(
  eps_fn: pairs.EpsFn, keys: jax.Array, x: jax.Array, cond: Cond, edges: jax.Array
) -> Profile:
  """What the two predictions of each sample differ by, at λ and ε of its own.

  eps_fn: see `pairs.null`; keys: (B,), one a sample; x: (B, …); edges: (M + 1,) ascending, of the
  bins. Two network calls a bin and sample.
  """
  axes = range(1, x.ndim)
  pair = pairs.null(eps_fn, cond)

  def of_bin(_, bin_and_ends):
    k, low, high = bin_and_ends
    k_lam, k_eps = jnp.unstack(
      jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, k)))(keys), axis=1
    )
    lam = low + (high - low) * jax.vmap(jax.random.uniform)(k_lam)
    eps = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(k_eps)
    towards, away = pair(diffusion.diffuse(x, eps, lam), lam)
    delta = towards.eps - away.eps
    square = jnp.sum(delta**2, axes)  # ‖ε − ε_u‖² − ‖ε − ε_c‖² = 2 ⟨ε − ε_c, Δ⟩ + ‖Δ‖²
    return None, Profile(0.5 * square, jnp.sum((eps - towards.eps) * delta, axes) + 0.5 * square)

  bins = jnp.arange(len(edges) - 1), edges[:-1], edges[1:]
  return jax.tree.map(jnp.transpose, jax.lax.scan(of_bin, None, bins)[1])


def band(density: np.ndarray, edges: np.ndarray, share: float = 0.8) -> tuple[float, float]:
  """The shortest (low, high) that holds a share of the density (M,), even in each of the bins."""
  sums = np.concatenate([[0.0], np.cumsum(density * np.diff(edges))])
  want = share * sums[-1]
  starts = edges[sums <= sums[-1] - want]  # one of the two ends is an edge
  stops = edges[sums >= want]
  highs = np.interp(np.interp(starts, edges, sums) + want, sums, edges)
  lows = np.interp(np.interp(stops, edges, sums) - want, sums, edges)
  low, high = np.append(starts, lows), np.append(highs, stops)
  best = np.argmin(high - low)
  return float(low[best]), float(high[best])
