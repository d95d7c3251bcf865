"""ADM's Algorithm 1: ancestral sampling whose mean guidance shifts (Dhariwal & Nichol 2021)."""

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.samplers.loop import Memory, Model, Noise, Step


def ddpm_shifted(
  model: Model,
  z: jax.Array,
  step: Step,
  noise: Noise,
  memory: Memory,
  *,
  v: float | jax.Array = 0.3,
) -> tuple[jax.Array, Memory]:
  """z_{t+1} ~ N(μ̃ + w Σ ∇_z log p(c|z), Σ), where μ̃ and Σ are those of `ddpm`, unguided.

  It takes the rule `mean_shift`, whose ε̃ − ε is −w σ ∇_z log p(c|z). Moving ε instead, as Algorithm
  2 does, shifts μ̃ by w β_t/√α_t ∇_z log p(c|z) in DDPM's notation: with Σ = β_t (v = 1) it is this
  one's shift divided by √(1 − β_t) = α_λ/α_λ'. x̃ is clipped before it is guided, and what the last
  step returns is unguided, where ADM's code shifts it too.
  """
  prediction, memory = model(z, step.lam, memory)
  mean, variance = diffusion.reverse(z, prediction.x, step.lam, step.lam_next, v)
  _, sigma = diffusion.alpha_sigma(step.lam)
  moved = prediction.eps - diffusion.predict_eps(z, prediction.x, step.lam)  # −w σ ∇
  return mean - variance / sigma * moved + jnp.sqrt(variance) * noise(step.t), memory
