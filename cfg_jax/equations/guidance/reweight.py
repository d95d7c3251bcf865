"""One run, many w: paths of Algorithm 2 guided by w₀, weighted towards those of other w.

A step of Algorithm 2 is a Gaussian of one variance for every w, and its mean follows from the same
two predictions. So the densities of a path under two w have a ratio, exact at any number of steps,
that takes no network call. For small steps and w near w₀ its log has the variance
(w − w₀)² ∫ E‖ε(z, c) − ε(z)‖² dλ, see `information`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.equations import diffusion
from cfg_jax.equations.guidance.classifier_free import guided_eps
from cfg_jax.equations.samplers.clip import clip


class Paths(NamedTuple):
  """B paths guided by w₀, as draws of each of K w."""

  x: jax.Array  # (B, K, *shape)
  log_weights: jax.Array  # (B, K), of which the exponentials have mean 1


def draw(
  pair: Callable,
  keys: jax.Array,
  shape: tuple[int, ...],
  lam: jax.Array,
  w: jax.Array,
  clip_x: bool = False,
  quantile: float = 0.0,
  *,
  w0: float | jax.Array,
  v: float | jax.Array = 0.3,
) -> Paths:
  """Algorithm 2 along lam (T,) guided by w0, a scalar or (B,), weighted towards every w (K,).

  pair: see `pairs`; keys: (B,), one a sample; clip_x, quantile: see `clip`, of each w's own x̃. The
  paths are z_1 … z_T; x is what each w makes of z_T in the last call, which adds no noise.

  After a step to so little noise that every w has an image of its own, no path of one is likely by
  another. The last step of the paper's few is such, from λ = 4 to 20 where T = 12: leave out
  its λ, and x is the same but for that noise, 5e-4 at v = 0.3.
  """

  def noise(t):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)

  def predict(z, lam):
    """x̃ as a function of w."""
    lams = jnp.full(z.shape[:1], lam)
    towards, away = pair(z, lams)

    def of(w):
      x = diffusion.predict_x(z, guided_eps(towards.eps, away.eps, w), lams)
      return clip(x, quantile=quantile) if clip_x else x

    return of

  def step(carry, step_and_lams):
    z, log_w = carry
    t, lam, lam_next = step_and_lams
    x = predict(z, lam)
    mean, variance = diffusion.reverse(z, x(w0), lam, lam_next, v)
    xi = jnp.sqrt(variance) * noise(t)

    def ratio(w):
      shift = diffusion.reverse(z, x(w), lam, lam_next, v)[0] - mean
      return diffusion.log_ratio(shift, xi, variance)

    return (mean + xi, log_w + jax.vmap(ratio, out_axes=1)(w)), None

  steps = (jnp.arange(1, len(lam)), lam[:-1], lam[1:])
  (z, log_w), _ = jax.lax.scan(step, (noise(0), jnp.zeros((len(keys), len(w)))), steps)
  return Paths(jax.vmap(predict(z, lam[-1]), out_axes=1)(w), log_w)


def mixed(log_weights: np.ndarray, source: np.ndarray) -> np.ndarray:
  """Log weights of N paths of several w₀, as draws of all of these together: (N, K).

  log_weights: (N, K), of each path from its own w₀, which is number `source` (N,) of the K w. A
  path counts p_w/Σ p_w₀, over all the w₀ by their shares of the paths, whichever it came from: the
  balance heuristic (Veach & Guibas 1995). So none is over N/n at a w₀ of n paths.
  """
  which, counts = np.unique(source, return_counts=True)
  of_sources = log_weights[:, which] + np.log(counts / len(source))
  return log_weights - np.logaddexp.reduce(of_sources, axis=1, keepdims=True)
