"""EDM's sampler: Heun's second order with churn. Karras et al. 2022, Algorithm 2."""

import math

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.samplers.loop import Memory, Model, Noise, Step


def heun(
  model: Model,
  z: jax.Array,
  step: Step,
  noise: Noise,
  memory: Memory,
  *,
  s_churn: float = 0.0,
  s_min: float = 0.05,
  s_max: float = 50.0,
  s_noise: float = 1.003,
) -> tuple[jax.Array, Memory]:
  """Adds noise up to ς̂ = (1 + γ) ς, then the trapezoidal rule of d(z/α)/dς = ε̃ from ς̂ to ς'.

  ς = σ/α = e^{−λ/2}; γ = min(s_churn/T, √2 − 1) where s_min ≤ ς ≤ s_max, else 0. s_churn = 0 is
  deterministic; EDM's recipe for ImageNet 64×64 is 40 with the other defaults, at T = 256. Two
  calls of the model a step, the second one a correction, which is left out where the predictions
  are of two kinds, and where ς̂ > 4 ς': it would extrapolate x̃ more than 1.5-fold, and does so
  1000-fold on the first step of the paper's grid.
  """
  lam, lam_next = step.lam, step.lam_next
  gamma = churn(lam, step.num_steps, s_churn=s_churn, s_min=s_min, s_max=s_max)
  lam_hat = lam - 2 * jnp.log1p(gamma)
  ratio = jnp.exp(0.5 * (jax.nn.log_sigmoid(lam_hat) - jax.nn.log_sigmoid(lam)))  # α̂/α
  sigma = diffusion.alpha_sigma(lam)[1]
  added = sigma * jnp.sqrt(gamma * (2 + gamma))  # α √(ς̂² − ς²)
  z = ratio * (z + added * s_noise * noise(step.t))

  first, memory = model(z, lam_hat, memory)
  alpha, sigma = diffusion.alpha_sigma(lam_next)
  euler = alpha * first.x + sigma * first.eps
  second, memory = model(euler, lam_next, memory)
  # z/α = x̃ + ς̂ ε̃, so the rule's ½ (ς' − ς̂)(ε̃ + ε̃') is Euler's step and a half of a difference.
  half = 0.5 * (sigma - alpha * jnp.exp(-0.5 * lam_hat))
  fine = (first.kind == second.kind) & (lam_next - lam_hat <= 2 * math.log(4))
  fine = diffusion.over_batch(jnp.broadcast_to(fine, z.shape[:1]), z)
  return euler + jnp.where(fine, half * (second.eps - first.eps), 0), memory


def churn(
  lam: jax.Array, num_steps: int, *, s_churn: float, s_min: float, s_max: float
) -> jax.Array:
  """γ of `heun` at lam, by which it adds noise before the step: λ̂ = λ − 2 log(1 + γ)."""
  varsigma = jnp.exp(-0.5 * lam)
  churned = (s_min <= varsigma) & (varsigma <= s_max)
  return jnp.where(churned, min(s_churn / num_steps, math.sqrt(2) - 1), 0)
