"""Data whose ε is exact: classes that are isotropic Gaussians, equally likely. No network.

What a trained network only approaches: Figure 2, and the measure of rules and samplers.
"""

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.conditioning import Cond


def exact_eps(
  z: jax.Array, lam: jax.Array, cond: Cond, *, means: jax.Array, std: float
) -> jax.Array:
  """E[ε|z_λ, c] = −σ_λ ∇ log q(z_λ|c), and of the whole mixture, E[ε|z_λ], where c is ∅.

  z: (B, D); lam: (B,); cond: of classes, int (B,) in 0..K−1; means: (K, D), of the classes; std: of
  each. Returns (B, D).
  """
  alpha, sigma = (a[:, None] for a in diffusion.alpha_sigma(lam))
  variance = (alpha * std) ** 2 + sigma**2  # of q(z_λ|c), around α_λ times the class's mean
  delta = z[:, None] - alpha[..., None] * means  # (B, K, D)
  posterior = jax.nn.softmax(-jnp.sum(delta**2, axis=-1) / (2 * variance))  # p(c|z_λ)
  one_class = jax.nn.one_hot(cond.value, len(means))
  weights = jnp.where(cond.given[:, None], one_class, posterior)
  return sigma / variance * jnp.sum(weights[..., None] * delta, axis=1)
