"""Algorithm 1 of the paper: the loss of joint training, conditional and unconditional."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfg_jax.equations import bound, conditioning, diffusion
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.guidance import pairs

EpsFn = Callable[[jax.Array, jax.Array, Cond], jax.Array]
vlb = bound.vlb  # the other objective: `bound` holds its parts


class Noisy(NamedTuple):
  """What Algorithm 1 draws for a batch: the model is given z, lam and cond, and is to find eps."""

  z: jax.Array  # (B, …), z_λ
  lam: jax.Array  # (B,)
  cond: Cond  # of B samples, some of them ∅
  eps: jax.Array  # (B, …)


def loss(
  eps_fn: EpsFn,
  key: jax.Array,
  x: jax.Array,
  cond: Cond,
  *,
  p_uncond: float | jax.Array,
  lambda_min: float = -20.0,
  lambda_max: float = 20.0,
) -> jax.Array:
  """Mean over the batch and all dimensions of ‖ε_θ(z_λ, c) − ε‖². Algorithm 1; equation 5.

  eps_fn: (z (B, …), lam (B,), cond) → (B, …). Others as for `draw`. The paper sums over dimensions;
  the mean differs by a constant factor only. Returns a float32 scalar.
  """
  noisy = draw(key, x, cond, p_uncond=p_uncond, lambda_min=lambda_min, lambda_max=lambda_max)
  return jnp.mean(losses(eps_fn, noisy))


def draw(
  key: jax.Array,
  x: jax.Array,
  cond: Cond,
  *,
  p_uncond: float | jax.Array,
  lambda_min: float = -20.0,
  lambda_max: float = 20.0,
) -> Noisy:
  """All that is random in Algorithm 1, before its gradient step.

  x: (B, …) in [−1, 1]; cond: of the same B samples, replaced by ∅ with probability
  p_uncond ∈ [0, 1].
  """
  k_drop, k_lam, k_eps = jax.random.split(key, 3)
  cond = conditioning.drop(k_drop, cond, p_uncond)
  lam = diffusion.log_snr(jax.random.uniform(k_lam, x.shape[:1]), lambda_min, lambda_max)
  eps = jax.random.normal(k_eps, x.shape, x.dtype)
  return Noisy(diffusion.diffuse(x, eps, lam), lam, cond, eps)


def model_guidance(teacher_fn: EpsFn, noisy: Noisy, w: float) -> Noisy:
  """Noisy with ε + k (ε'(z, c) − ε'(z)) to be found in place of ε: where c is ∅, that is ε.

  Tang et al. 2025 (2502.12154), model guidance. teacher_fn: ε', without a gradient, which follows
  the model, such as its EMA. Once it is the model, that is ε(z, c) = ε̂ + k (ε(z, c) − ε(z)), where
  ε̂ is what it would be for k = 0: so its one pass is ε̂ guided by w = k/(1 − k) ≥ 0. Theirs is k.
  """
  towards, away = pairs.null(teacher_fn, noisy.cond)(noisy.z, noisy.lam)
  return noisy._replace(eps=noisy.eps + w / (1 + w) * (towards.eps - away.eps))


def cross_entropies(logits: jax.Array, cond: Cond) -> jax.Array:
  """−log p(c|z_λ) of every sample, (B,): the loss of a classifier. In float32.

  logits: (B, K); cond: of classes, int (B,) in 0..K−1, all given.
  """
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  return -jnp.take_along_axis(log_p, cond.value[:, None], axis=1)[:, 0]


def losses(eps_fn: EpsFn, noisy: Noisy) -> jax.Array:
  """‖ε_θ(z_λ, c) − ε‖² of every sample, as a mean over its dimensions: (B,)."""
  error = jnp.square(eps_fn(noisy.z, noisy.lam, noisy.cond) - noisy.eps)
  return jnp.mean(error, axis=tuple(range(1, error.ndim)))
