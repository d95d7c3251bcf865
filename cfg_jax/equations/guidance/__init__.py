"""Section 3 of the paper: classifier-free guidance. The only file that knows w.

w is the paper's guidance strength: w = 0 is the conditional model, w = −1 the unconditional one.
Other texts use the scale s = 1 + w.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np


def guided_eps(eps_cond: jax.Array, eps_uncond: jax.Array, w: float | jax.Array) -> jax.Array:
  """ε̃ = (1 + w) ε(z, c) − w ε(z). Section 3, equation 6; Algorithm 2.

  eps_cond, eps_uncond: (B, …); w: a scalar, or (B,) for one strength a sample. Returns (B, …).
  """
  w = jnp.asarray(w)
  if w.ndim:
    chex.assert_shape(w, (eps_cond.shape[0],))
    w = w.reshape(w.shape + (1,) * (eps_cond.ndim - 1))
  return (1 + w) * eps_cond - w * eps_uncond


def w_from_scale(s: float | jax.Array) -> float | jax.Array:
  """W = s − 1, for the scale s (or γ) of the other literature, where 1 means no guidance."""
  return s - 1


def guide(
  eps_fn: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
  c: jax.Array,
  w: float | jax.Array,
  null_class: int,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """The guided ε̃(z, λ) of a conditional model ε(z, λ, c), with both passes in one network call.

  eps_fn: (z (N, …), lam (N,), c (N,)) → (N, …), called with N = 2B; c: (B,) integer classes; w: a
  scalar or (B,), traced or not; null_class: the index that stands for ∅. Returns a function of
  z (B, …) and lam (B,). Where all w are 0 the ∅ half is not computed: if w is traced that choice is
  made while the program runs, so that one compiled program serves every w.
  """

  def conditional(z, lam):
    return eps_fn(z, lam, c)

  def both(z, lam):
    # Each sample's two passes lie side by side, [z₁ z₁ z₂ z₂ …] with [c₁ ∅ c₂ ∅ …]: under a batch
    # sharded over devices no sample has to move, as it would for [z; z].
    c_and_null = jnp.stack([c, jnp.full_like(c, null_class)], axis=1).reshape(-1)
    eps = eps_fn(jnp.repeat(z, 2, axis=0), jnp.repeat(lam, 2, axis=0), c_and_null)
    return guided_eps(eps[0::2], eps[1::2], w)

  if isinstance(w, jax.core.Tracer):
    unguided = jnp.all(w == 0)
    return lambda z, lam: jax.lax.cond(unguided, conditional, both, z, lam)
  return conditional if np.all(np.asarray(w) == 0) else both
