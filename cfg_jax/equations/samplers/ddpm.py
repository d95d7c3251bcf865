"""Algorithm 2 of the paper: ancestral sampling."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.samplers.loop import Memory, Model


def ddpm(
  model: Model,
  z: jax.Array,
  t: jax.Array,
  lams: tuple[jax.Array, jax.Array],
  noise: Callable[[jax.Array], jax.Array],
  memory: Memory,
  *,
  v: float | jax.Array,
) -> tuple[jax.Array, Memory]:
  """z_{t+1} ~ N(μ̃(z_t, x̃_t), (σ̃²)^{1−v} (σ²)^v I). Algorithm 2, lines 4 and 5.

  v ∈ [0, 1] interpolates the variance in log space. A step is one call of the model.
  """
  lam, lam_next = lams
  prediction, memory = model(z, lam, memory)
  mean, variance = diffusion.reverse(z, prediction.x, lam, lam_next, v)
  return mean + jnp.sqrt(variance) * noise(t), memory
