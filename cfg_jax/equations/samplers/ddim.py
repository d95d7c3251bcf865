"""DDIM: from deterministic (η = 0) to DDPM (η = 1). Song, Meng & Ermon 2021, equation 12."""

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.samplers.loop import Memory, Model, Noise, Step


def ddim(
  model: Model,
  z: jax.Array,
  step: Step,
  noise: Noise,
  memory: Memory,
  *,
  eta: float | jax.Array = 0.0,
) -> tuple[jax.Array, Memory]:
  """z_λ' = α_λ' x̃ + √(σ_λ'² − τ²) ε̃ + τ ξ with τ² = η² (1 − e^{λ−λ'}) σ_λ'².

  η ∈ [0, 1]: η = 1 is Algorithm 2 with v = 0. A step is one call of the model.
  """
  prediction, memory = model(z, step.lam, memory)
  alpha, sigma = diffusion.alpha_sigma(step.lam_next)
  # σ_λ'² − τ² = σ_λ'² (1 − η² + η² e^{λ−λ'}), a sum of what is positive.
  of_eps = sigma * jnp.sqrt((1 - eta) * (1 + eta) + eta**2 * jnp.exp(step.lam - step.lam_next))
  tau = eta * sigma * jnp.sqrt(-jnp.expm1(step.lam - step.lam_next))
  return alpha * prediction.x + of_eps * prediction.eps + tau * noise(step.t), memory
