"""What a sample is conditioned on, and ∅, for any kind of condition."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Cond(NamedTuple):
  """The conditions of a batch; ∅ is a flag, not a value.

  value: a tree of arrays (B, …): class ids, attributes, tokens. given: (B,) bool; where it is False
  the sample's condition is ∅, whatever value holds.
  """

  value: Any
  given: jax.Array


def given(value: Any) -> Cond:
  """The condition `value`, a tree of arrays (B, …), in every sample."""
  batch_size = jax.tree.leaves(value)[0].shape[0]
  return Cond(value, jnp.ones(batch_size, bool))


def null(cond: Cond) -> Cond:
  """∅ in every sample, in the shapes of cond."""
  return cond._replace(given=jnp.zeros_like(cond.given))


def drop(key: jax.Array, cond: Cond, p_uncond: float | jax.Array) -> Cond:
  """Cond with each sample's condition replaced by ∅ with probability p_uncond. Algorithm 1."""
  dropped = jax.random.bernoulli(key, p_uncond, cond.given.shape)
  return cond._replace(given=cond.given & ~dropped)
