"""The one loop of all samplers: a grid of λ times a solver, as one `lax.scan`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfg_jax.equations.diffusion import Prediction


class Memory(NamedTuple):
  """What is kept from step to step: arrays like z, zeros at first."""

  rule: jax.Array  # a guidance rule's
  solver: jax.Array  # a solver's


Model = Callable[[jax.Array, jax.Array, Memory], tuple[Prediction, Memory]]


def run(
  model: Model, solver: Callable, keys: jax.Array, shape: tuple[int, ...], lam: jax.Array
) -> jax.Array:
  """Draws z_1 ~ N(0, I), moves it along lam (T,) by T − 1 steps of the solver, and returns x̃.

  model: (z (B, *shape), lam (B,), memory) → (prediction, memory), guidance included; solver:
  (model, z, t, (lam, lam_next), noise, memory) → (z, memory), its knobs set, where noise(t) is the
  N(0, I) of step t = 1 … T − 1; keys: (B,), one a sample, so that a sample's noise does not depend
  on the batch it is in; shape: of one sample. Returns (B, *shape): the model's x at λ_T.
  """

  def noise(t):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)

  def of_batch(z, lam, memory):
    return model(z, jnp.full(z.shape[:1], lam), memory)

  def step(carry, t_lam):
    z, memory = carry
    t, lam, lam_next = t_lam
    return solver(of_batch, z, t, (lam, lam_next), noise, memory), None

  z = noise(0)
  memory = Memory(jnp.zeros_like(z), jnp.zeros_like(z))
  steps = (jnp.arange(1, len(lam)), lam[:-1], lam[1:])
  (z, memory), _ = jax.lax.scan(step, (z, memory), steps)
  return of_batch(z, lam[-1], memory)[0].x
