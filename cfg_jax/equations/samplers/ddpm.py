"""Algorithm 2 of the paper: ancestral sampling."""

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.samplers.loop import Memory, Model, Noise, Step


def ddpm(
  model: Model,
  z: jax.Array,
  step: Step,
  noise: Noise,
  memory: Memory,
  *,
  v: float | jax.Array = 0.3,
) -> tuple[jax.Array, Memory]:
  """z_{t+1} ~ N(μ̃(z_t, x̃_t), (σ̃²)^{1−v} (σ²)^v I). Algorithm 2, lines 4 and 5.

  v ∈ [0, 1] interpolates the variance in log space; DDPM's two fixed variances are v = 0, β̃_t, and
  v = 1, β_t. A step is one call of the model. It tells how likely the step was under each of the
  prediction's `sides`, as transitions of the same variance.
  """
  prediction, memory = model(z, step.lam, memory)
  mean, variance = diffusion.reverse(z, prediction.x, step.lam, step.lam_next, v)
  xi = jnp.sqrt(variance) * noise(step.t)
  if prediction.sides:
    others = (diffusion.reverse(z, x, step.lam, step.lam_next, v)[0] for x in prediction.sides)
    ratios = [diffusion.log_ratio(other - mean, xi, variance) for other in others]
    told = memory.told + jnp.stack(ratios, axis=1)
    memory = memory._replace(told=told)
  return mean + xi, memory
