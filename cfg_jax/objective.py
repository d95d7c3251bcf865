"""Algorithm 1 of the paper: the loss of joint training, conditional and unconditional."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfg_jax import diffusion


def loss(
  eps_fn: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
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

  eps_fn: (z (B, …), lam (B,), c (B,)) → (B, …); x: (B, …) in [−1, 1]; c: (B,) integers, replaced by
  null_class (∅) with probability p_uncond ∈ [0, 1]. The paper sums over dimensions; the mean
  differs by a constant factor only. Returns a float32 scalar.
  """
  k_drop, k_lam, k_eps = jax.random.split(key, 3)
  batch_size = x.shape[0]
  c = jnp.where(jax.random.bernoulli(k_drop, p_uncond, (batch_size,)), null_class, c)
  lam = diffusion.log_snr(jax.random.uniform(k_lam, (batch_size,)), lambda_min, lambda_max)
  eps = jax.random.normal(k_eps, x.shape, x.dtype)
  z = diffusion.diffuse(x, eps, lam)
  return jnp.mean(jnp.square(eps_fn(z, lam, c) - eps))
