"""What a network is told of λ: sinusoids of a time t in [0, 1000], of which there are three kinds.

  arctan      t = 1000·arctan(e^{−λ/2})/(π/2), of the authors' public code (the paper is silent)
  adm_cosine  ADM's discrete times under the cosine schedule, as its 64×64 network was trained
  adm_linear  the same under the linear schedule, as its 128×128 network was trained

ADM's networks know t = 0, …, 999 only. Between two of these t is linear in λ, so that a sampler on
continuous λ can drive them: at the λ_t of ADM's schedule, t comes out whole.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.core.fields import Field
from cfg_jax.equations import schedules

EMBEDDINGS = ('arctan', 'adm_cosine', 'adm_linear')
EXPONENTS = Field(int, -4, 16, 'must be whole numbers, -4 to 16; VDM has 7 and 8', many=True)


def embed_lambda(lam: jax.Array, dim: int, embedding: str = 'arctan') -> jax.Array:
  """Cosines, then sines, of t(λ) at periods 2π … 2π·10⁴. (B,) → (B, dim), dim even."""
  if embedding == 'arctan':
    t = 1000 / (jnp.pi / 2) * jnp.arctan(jnp.exp(-0.5 * lam))
  else:
    t = jnp.interp(-lam, -adm_lambdas(embedding), np.arange(1000.0))  # −λ, since it must increase
  return sinusoids(t, dim)


def sinusoids(t: jax.Array, dim: int) -> jax.Array:
  """Cosines, then sines, of t at periods 2π … 2π·10⁴. (B,) → (B, dim), dim even."""
  angle = t[:, None] * jnp.exp(-jnp.log(10_000.0) * jnp.arange(dim // 2) / (dim // 2))
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def adm_lambdas(embedding: str) -> np.ndarray:
  """λ_t at ADM's times t = 0, …, 999, decreasing: float64 (1000,)."""
  return schedules.ddpm_lambdas(embedding.removeprefix('adm_'))


def fourier_features(z: jax.Array, exponents: Sequence[int]) -> jax.Array:
  """z, and sin(2ⁿπz) and cos(2ⁿπz) for each n of exponents, as channels, in float32.

  They make visible what an 8-bit image's last bits say (Kingma et al. 2021, section 5.4). (B, H, W,
  C) → (B, H, W, C (1 + 2 len(exponents))); () leaves z as it is.
  """
  if not exponents:
    return z
  # sin(2ⁿπz) of z = k 2^{1−n} + r is sin(2ⁿπr): a power of 2 times z is exact, and so is its rest.
  turns = [jnp.mod(z * 2.0 ** (n - 1), 1) for n in exponents]
  waves = [f(2 * jnp.pi * turn) for turn in turns for f in (jnp.sin, jnp.cos)]
  return jnp.concatenate([z, *waves], axis=-1)
