"""Algorithm 2 of the paper: ancestral sampling along T values of λ, as one `lax.scan`.

The sampler takes a function ε̃(z, λ) and never hears of w: compose with `guidance.guide`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.equations import diffusion


def lambda_grid(num_steps: int, lambda_min: float, lambda_max: float) -> jax.Array:
  """λ_1 = λ_min < … < λ_T = λ_max, from uniformly spaced u. Section 2. Shape (T,), T ≥ 2."""
  if num_steps < 2:
    raise ValueError(f'num_steps={num_steps} must be at least 2: the grid has two ends.')
  lam = diffusion.log_snr(np.linspace(1, 0, num_steps), lambda_min, lambda_max)
  return lam.at[0].set(lambda_min).at[-1].set(lambda_max)  # exact, whatever arctan and tan round to


def sample(
  eps_fn: Callable[[jax.Array, jax.Array], jax.Array],
  keys: jax.Array,
  shape: tuple[int, ...],
  *,
  num_steps: int,
  v: float | jax.Array,
  lambda_min: float,
  lambda_max: float,
  clip_x: bool,
) -> jax.Array:
  """x̃ of Algorithm 2: T = num_steps evaluations of ε̃, and T − 1 noisy steps between them.

  eps_fn: (z (B, *shape), lam (B,)) → (B, *shape), guidance included; keys: (B,) PRNG keys, one a
  sample, so that a sample's noise does not depend on the batch it is in; shape: of one sample, such
  as (H, W, C); v ∈ [0, 1]; clip_x: clip every x̃ to [−1, 1] (not in the paper: the authors' code
  does it, and unclipped the first step multiplies an error of ε by up to 273). Returns (B, *shape).
  """

  def noise(t):  # ε of step t, for every sample from its own key
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)

  def predict(z, lam):
    x = diffusion.predict_x(z, eps_fn(z, jnp.full(z.shape[:1], lam)), lam)
    return jnp.clip(x, -1, 1) if clip_x else x

  def step(z, t_lam):
    t, lam, lam_next = t_lam
    mean, variance = diffusion.reverse(z, predict(z, lam), lam, lam_next, v)
    return mean + jnp.sqrt(variance) * noise(t), None

  lam = lambda_grid(num_steps, lambda_min, lambda_max)
  steps = (jnp.arange(1, num_steps), lam[:-1], lam[1:])
  z, _ = jax.lax.scan(step, noise(0), steps)  # z_1 ~ N(0, I), then z_2 … z_T
  return predict(z, lam[-1])
