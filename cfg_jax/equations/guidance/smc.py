"""Samples of the paper's p̃(x|c) ∝ p(x|c) p(c|x)^w itself: guided particles, weighted, resampled.

Guided ancestral sampling does not draw from p̃ (Figure 2's second row). Its path becomes right if it
is weighted by p(path|c)^{1+w} p(path)^{−w} over its own density, all three of them products of
Gaussian transitions: as many network calls as guidance has. For small steps that is
d log W = ½ w (1 + w) ‖ε(z, c) − ε(z)‖² dλ, as in Feynman-Kac correctors (Skreta et al. 2025,
2503.02819).

On the way log p(c|z)/p(c), what the path so far says of the condition, costs nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.guidance.classifier_free import guided_eps
from cfg_jax.equations.samplers.clip import clip

PARTICLES, RESAMPLING, PICK = 2**30, 2**29, 2**28  # what keys are folded with, beside steps


class Particles(NamedTuple):
  """K weighted draws for each of B samples."""

  x: jax.Array  # (B, K, *shape)
  log_weights: jax.Array  # (B, K), of which the exponentials have mean 1
  log_evidence: jax.Array  # (B,), of ∫ p(x|c)^{1+w} p(x)^{−w} dx = exp(w D_{1+w}), an estimate
  effective: jax.Array  # (B, T − 1), the effective sample size of K after each step
  log_ratio: jax.Array  # (B, K, T − 1), log p(c|z)/p(c) by the path of each up to after each step


def draw(
  pair: Callable,
  keys: jax.Array,
  shape: tuple[int, ...],
  lam: jax.Array,
  w: float | jax.Array,
  clip_x: bool = False,
  quantile: float = 0.0,
  *,
  particles: int = 16,
  v: float | jax.Array = 0.3,
  resample_below: float = 0.5,
) -> Particles:
  """Algorithm 2 along lam (T,) for K = particles of each sample, weighted towards p̃.

  pair: of B K samples, see `pairs`, the particles of a sample side by side (`jnp.repeat` its
  condition); keys: (B,), one a sample, which alone decide its particles; w ≥ 0: a scalar or (B,);
  clip_x, quantile: see `clip`; v: as for Algorithm 2; resample_below: the share of K below which
  the effective sample size may not fall, else particles are drawn anew by their weights
  (systematically, Kitagawa 1996). Exact as K and T grow, if the classes are one at λ_1 and x is not
  clipped: at large w most weight falls on few particles, which `effective` tells. Resampled ones
  share their past.

  log_ratio adds up log p(z'|z, c) − log p(z'|z), as feedback guidance (2506.06085) and Itô density
  estimators (2412.17762) do. For many steps that is log p(c|x) − log p(c), whatever guides: with
  exact predictions its error falls as 1/√T.
  """
  num, k = len(keys), particles
  of_particle = jax.vmap(lambda key: _fold(key, PARTICLES + jnp.arange(k)))(keys).reshape(-1)
  of_batch = jnp.repeat(jnp.broadcast_to(w, (num,)), k)

  def noise(t):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(of_particle)

  def predict(z, lam):
    """x̃ and the two x, clipped."""
    lams = jnp.full(z.shape[:1], lam)
    sides = pair(z, lams)
    eps = guided_eps(sides[0].eps, sides[1].eps, of_batch)
    all_x = (diffusion.predict_x(z, eps, lams), sides[0].x, sides[1].x)
    return [clip(x, quantile=quantile) for x in all_x] if clip_x else all_x

  def step(carry, step_and_lams):
    z, log_w, log_evidence, log_ratio = carry
    t, lam, lam_next = step_and_lams
    means, variances = zip(*(diffusion.reverse(z, x, lam, lam_next, v) for x in predict(z, lam)))
    mean, (of_c, of_u) = means[0], (other - means[0] for other in means[1:])
    xi = jnp.sqrt(variances[0]) * noise(t)
    of_c, of_u = (diffusion.log_ratio(x, xi, variances[0]) for x in (of_c, of_u))
    log_w = log_w + ((1 + of_batch) * of_c - of_batch * of_u).reshape(num, k)
    step_ratio = (of_c - of_u).reshape(num, k)
    log_ratio = log_ratio.at[..., t - 1].set(log_ratio[..., t - 2] + step_ratio)
    log_mean = jax.nn.logsumexp(log_w, axis=1) - jnp.log(k)
    log_w, log_evidence = log_w - log_mean[:, None], log_evidence + log_mean
    effective = k / jnp.mean(jnp.exp(2 * log_w), axis=1)
    few = effective < resample_below * k
    chosen = jax.vmap(systematic, (0, 0, None))(_fold_all(keys, RESAMPLING + t), log_w, k)
    chosen = jnp.where(few[:, None], chosen, jnp.arange(k))
    z = take((mean + xi).reshape(num, k, *shape), chosen).reshape(z.shape)
    log_w = jnp.where(few[:, None], 0, log_w)
    return (z, log_w, log_evidence, take(log_ratio, chosen)), effective

  nothing, none_yet = jnp.zeros((num, k)), jnp.zeros((num, k, len(lam) - 1))
  steps = (jnp.arange(1, len(lam)), lam[:-1], lam[1:])
  (z, log_w, log_evidence, log_ratio), effective = jax.lax.scan(
    step, (noise(0), nothing, nothing[:, 0], none_yet), steps
  )
  x = predict(z, lam[-1])[0].reshape(num, k, *shape)
  return Particles(x, log_w, log_evidence, effective.T, log_ratio)


def pick(keys: jax.Array, found: Particles, num: int = 1) -> jax.Array:
  """num of the particles of each sample, by their weights: (B, num, *shape). keys: (B,)."""
  return take(found.x, picked(keys, found, num))


def picked(keys: jax.Array, found: Particles, num: int = 1) -> jax.Array:
  """Which particles `pick` picks: (B, num)."""
  keys = _fold_all(keys, PICK)
  return jax.vmap(systematic, (0, 0, None))(keys, found.log_weights, num)


def take(x: jax.Array, indices: jax.Array) -> jax.Array:
  """Of x (B, K, …), particles indices (B, n): (B, n, …)."""
  return jax.vmap(lambda rows, i: rows[i])(x, indices)


def systematic(key: jax.Array, log_weights: jax.Array, num: int) -> jax.Array:
  """num indices into log_weights (K,), ascending, each as often as its weight says, to within one.

  Kitagawa 1996: from one uniform number.
  """
  shares = jnp.cumsum(jax.nn.softmax(log_weights))
  at = (jax.random.uniform(key) + jnp.arange(num)) / num * shares[-1]
  return jnp.minimum(jnp.searchsorted(shares, at, side='right'), len(log_weights) - 1)


def _fold(key, data):
  return jax.vmap(jax.random.fold_in, (None, 0))(key, data)


def _fold_all(keys, data):
  return jax.vmap(jax.random.fold_in, (0, None))(keys, data)
