"""w as a function of λ: classifier-free guidance in an interval, and rising or falling along it.

What one Gaussian class becomes under any of them is a closed form, so each has an exact law.
"""

import jax
import jax.numpy as jnp

from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance.classifier_free import classifier_free


def interval(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
  lo: float | jax.Array = -2.13,
  hi: float | jax.Array = 2.55,
) -> tuple[Prediction, jax.Array]:
  """w where lo ≤ λ < hi, else 0. Kynkäänniemi et al. 2024 (2404.07724).

  Theirs is σ_lo < σ/α ≤ σ_hi, with λ = −2 ln(σ/α). The defaults are EDM2-S's for FID, of latents of
  ImageNet 512×512: other data have others. One network call a step where every sample of the batch
  is outside, else two.
  """
  inside = (lo <= lam) & (lam < hi)
  w = jnp.where(inside, w, 0)
  prediction, memory = classifier_free(towards, away, z, lam, memory, w=w)
  return prediction._replace(kind=w != 0, smooth=towards.x), memory


def outside(lam, memory, *, w, lo=-2.13, hi=2.55):
  """Where `interval` does not guide: (B,)."""
  del memory
  return (w == 0) | (lam < lo) | (lam >= hi)


def linear(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
) -> tuple[Prediction, jax.Array]:
  """2 w p, rising from 0 in all noise to 2w, with mean w. Wang et al. 2024 (2404.13040).

  p is `progress`. Two network calls a step, as for all below.
  """
  p, _ = progress(lam)
  return classifier_free(towards, away, z, lam, memory, w=2 * w * p)


def cosine(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
) -> tuple[Prediction, jax.Array]:
  """w (1 − cos πp), rising from 0 to 2w with mean w. Wang et al. 2024 (2404.13040)."""
  p, _ = progress(lam)
  return classifier_free(towards, away, z, lam, memory, w=2 * w * jnp.sin(0.5 * jnp.pi * p) ** 2)


def beta(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
  a: float | jax.Array = 2.0,
  b: float | jax.Array = 2.0,
) -> tuple[Prediction, jax.Array]:
  """w Beta(p; a, b), of mean w: most in the middle, and none at the ends. β-CFG (2502.10574).

  a, b ≥ 1, the density's; 1 and 1 is w everywhere. Their division by ‖Δ‖ is left out.
  """
  p, left = progress(lam)
  of_p = jax.scipy.special.xlogy(a - 1, p) + jax.scipy.special.xlogy(b - 1, left)
  density = jnp.exp(of_p - jax.scipy.special.betaln(a, b))
  return classifier_free(towards, away, z, lam, memory, w=w * density)


def progress(lam: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(p, 1 − p): the share of the paper's grid, of all λ, that lies before λ, and after.

  p = 1 − (2/π) arctan(e^{−λ/2}), 0 for noise. Schedules over a fraction of the steps are of p here,
  so that w is the same function of λ on every grid. Section 2. Shapes follow lam.
  """
  return tuple(2 / jnp.pi * jnp.arctan(jnp.exp(half)) for half in (0.5 * lam, -0.5 * lam))
