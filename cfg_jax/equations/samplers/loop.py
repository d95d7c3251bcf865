"""The one loop of all samplers: a grid of λ times a solver, as one `lax.scan`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cfg_jax.equations.diffusion import Prediction


class Memory(NamedTuple):
  """What is kept from step to step, zeros at first."""

  rule: Any  # a guidance rule's, like z if the rule does not say else
  solver: Prediction  # a solver's last one, if it looks back
  # (B, K), log p(z_1 … z_t | side k) but for what all have in common, if the model has `sides`
  told: jax.Array | None = None


class Step(NamedTuple):
  """Step t = 1 … T − 1 of a sampler, from λ_t to λ_{t+1}: scalars, traced but for T."""

  t: jax.Array
  num_steps: int  # T
  lam_before: jax.Array  # λ_{t−1}; λ_1 where t = 1
  lam: jax.Array
  lam_next: jax.Array


Carry = tuple[jax.Array, Memory]  # z, and what is kept with it


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=['carry'], meta_fields=['first', 'until']
)
@dataclasses.dataclass(frozen=True)
class Part:
  """Which of a sampler's T − 1 steps are run, counted from 0: first … until − 1; by default all.

  A part with `until` returns its carry, with which another one begins, at `first` = that `until`.
  """

  first: int = 0
  until: int | None = None
  carry: Carry | None = None


WHOLE = Part()
Model = Callable[[jax.Array, jax.Array, Memory], tuple[Prediction, Memory]]
Noise = Callable[[jax.Array], jax.Array]


def run(
  model: Model,
  solver: Callable,
  keys: jax.Array,
  shape: tuple[int, ...],
  lam: jax.Array,
  part: Part = WHOLE,
) -> jax.Array | Carry:
  """Draws z_1 ~ N(0, I), moves it along lam (T,) by T − 1 steps of the solver, and returns x̃.

  model: (z (B, *shape), lam (B,), memory) → (prediction, memory), guidance included, with an
  attribute `memory`, z → (rule, told) of `Memory`, if it keeps else than an array like z; solver:
  (model, z, step, noise, memory) → (z, memory), its knobs set, where noise(i) is N(0, I), the same
  for the same i: i = t in step t, and T + t where a step needs a second one; keys: (B,), one a
  sample, so that a sample's noise does not depend on the batch it is in; shape: of one sample.
  Returns (B, *shape): the model's x at λ_T; or the carry of a part that ends before.
  """

  def noise(i):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), shape))(keys)

  def of_batch(z, lam, memory):
    prediction, memory = model(z, jnp.full(z.shape[:1], lam), memory)
    kind = jnp.broadcast_to(jnp.asarray(prediction.kind), z.shape[:1])
    smooth = jnp.zeros_like(z) if prediction.smooth is None else prediction.smooth
    return prediction._replace(kind=kind, smooth=smooth), memory

  def step(carry, step_and_lams):
    z, memory = carry
    t, *lams = step_and_lams
    return solver(of_batch, z, Step(t, len(lam), *lams), noise, memory), None

  z = noise(0)
  nothing = jnp.zeros_like(z)
  rule, told = model.memory(z) if hasattr(model, 'memory') else (nothing, None)
  last = Prediction(nothing, nothing, jnp.zeros(z.shape[:1], bool), nothing)
  memory = Memory(rule, last, told)
  before = jnp.concatenate([lam[:1], lam[:-2]])
  steps = (jnp.arange(1, len(lam)), before, lam[:-1], lam[1:])
  steps = [a[part.first : part.until] for a in steps]
  (z, memory), _ = jax.lax.scan(step, part.carry or (z, memory), steps)
  if part.until is not None:
    return z, memory
  return of_batch(z, lam[-1], memory)[0].x
