"""Algorithm 1 of the paper: the loss of joint training, conditional and unconditional."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion

EpsFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Noisy(NamedTuple):
  """What Algorithm 1 draws for a batch: the model is given z, lam and c, and is to find eps."""

  z: jax.Array  # (B, …), z_λ
  lam: jax.Array  # (B,)
  c: jax.Array  # (B,) integers, some of them ∅
  eps: jax.Array  # (B, …)


def loss(
  eps_fn: EpsFn,
  key: jax.Array,
  x: jax.Array,
  c: jax.Array,
  *,
  p_uncond: float | jax.Array,
  null_class: int,
  lambda_min: float,
  lambda_max: float,
) -> jax.Array:
  """Mean over the batch and all dimensions of ‖ε_θ(z_λ, c) − ε‖². Algorithm 1; equation 5.

  eps_fn: (z (B, …), lam (B,), c (B,)) → (B, …). Others as for `draw`. The paper sums over
  dimensions; the mean differs by a constant factor only. Returns a float32 scalar.
  """
  noisy = draw(
    key,
    x,
    c,
    p_uncond=p_uncond,
    null_class=null_class,
    lambda_min=lambda_min,
    lambda_max=lambda_max,
  )
  return jnp.mean(losses(eps_fn, noisy))


def draw(
  key: jax.Array,
  x: jax.Array,
  c: jax.Array,
  *,
  p_uncond: float | jax.Array,
  null_class: int,
  lambda_min: float,
  lambda_max: float,
) -> Noisy:
  """All that is random in Algorithm 1, before its gradient step.

  x: (B, …) in [−1, 1]; c: (B,) integers, replaced by null_class (∅) with probability
  p_uncond ∈ [0, 1].
  """
  k_drop, k_lam, k_eps = jax.random.split(key, 3)
  batch_size = x.shape[0]
  c = jnp.where(jax.random.bernoulli(k_drop, p_uncond, (batch_size,)), null_class, c)
  lam = diffusion.log_snr(jax.random.uniform(k_lam, (batch_size,)), lambda_min, lambda_max)
  eps = jax.random.normal(k_eps, x.shape, x.dtype)
  return Noisy(diffusion.diffuse(x, eps, lam), lam, c, eps)


def losses(eps_fn: EpsFn, noisy: Noisy) -> jax.Array:
  """‖ε_θ(z_λ, c) − ε‖² of every sample, as a mean over its dimensions: (B,)."""
  error = jnp.square(eps_fn(noisy.z, noisy.lam, noisy.c) - noisy.eps)
  return jnp.mean(error, axis=tuple(range(1, error.ndim)))
