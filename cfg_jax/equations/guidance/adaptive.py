"""Adaptive guidance: no second pass any more once both agree."""

import jax
import jax.numpy as jnp

from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance.classifier_free import classifier_free

START, APART, AGREED = 0, 1, 2  # what `memory` holds, all of a sample's numbers alike


def adaptive(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
  theta: float | jax.Array = 0.99,
) -> tuple[Prediction, jax.Array]:
  """w until cos(ε(z, c), ε(z)) > θ, and 0 ever after. Castillo et al. 2023 (2312.12487).

  At λ = −20 both say ε = z and agree at once, so it counts from the first time that they are apart.
  θ ≥ 1 is classifier-free guidance. A step is one network call once every sample of the batch has
  agreed, and two before.
  """
  before = _state(memory)
  c, u = (p.eps.reshape(len(z), -1) for p in (towards, away))
  # cos > θ, where rounding makes no cosine over 1
  norms = jnp.sqrt(jnp.sum(c**2, axis=1)) * jnp.sqrt(jnp.sum(u**2, axis=1))
  agree = (jnp.sum(c * u, axis=1) > theta * norms) & (jnp.asarray(theta) < 1)
  state = jnp.where(agree & (before != START), AGREED, jnp.where(agree, START, APART))
  state = jnp.where(before == AGREED, AGREED, state)
  done = before == AGREED  # from the next call on
  prediction, _ = classifier_free(towards, away, z, lam, memory, w=jnp.where(done, 0, w))
  shape = (-1,) + (1,) * (z.ndim - 1)
  memory = jnp.broadcast_to(state.reshape(shape), z.shape).astype(memory.dtype)
  return prediction._replace(kind=done, smooth=towards.x), memory


def agreed(lam, memory, *, w, theta=0.99):
  """Where `adaptive` guides no more: (B,)."""
  del lam, theta
  return (w == 0) | (_state(memory) == AGREED)


def _state(memory):
  return memory.reshape(len(memory), -1)[:, 0]
