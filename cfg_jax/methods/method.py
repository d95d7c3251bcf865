"""What a method is: pure functions."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.core.state import Mean, TrainState
from cfg_jax.data.batches import Batch
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.samplers import loop

Settings = dict[str, np.generic]  # numbers of a config, by name


class Request(NamedTuple):
  """What is to be drawn: B samples, each from a key of its own."""

  keys: jax.Array  # (B,)
  cond: Cond
  knobs: dict[str, jax.Array]  # of the guidance rule, (B,) each
  part: loop.Part = loop.WHOLE  # of the sampler's steps


class Drawn(NamedTuple):
  """What was drawn."""

  x: jax.Array | loop.Carry  # (B, …) in [−1, 1]; or what a part of the steps left
  beside: dict[str, jax.Array]  # (B, …) each, what is recorded beside the images


class Method(NamedTuple):
  """A trained thing, as pure functions; `make` of its file gives one for a config."""

  init: Callable[[int], TrainState]  # of the seed; trace it under jit to place the state
  loss: Callable[[dict, Batch, jax.Array], jax.Array]  # (params, batch, key): what is descended
  # (state, batch, settings), by default those below
  step: Callable[..., tuple[TrainState, dict[str, Mean]]]
  draw: Callable[[dict, Request], Drawn] | None  # (params, request)
  # (params, batch, keys (B,)) → numbers for each of the images (B,), which training has not seen
  score: Callable[[dict, Batch, jax.Array], dict[str, jax.Array]] | None = None
  # What a step takes traced, so that models which differ in nothing else share its program.
  settings: Settings = {}


def by_quarter(
  values: jax.Array, lam: jax.Array, lambda_min: float, lambda_max: float, name: str = 'loss'
) -> dict[str, Mean]:
  """The mean of the samples' values (B,) in each quarter of [λ_min, λ_max]: loss_quarter_1 … _4.

  Quarter k = 1..4 is λ_min + (k−1)/4 (λ_max−λ_min) ≤ λ < λ_min + k/4 (λ_max−λ_min), the last one
  with its end: the first is almost noise, the last almost the image.
  """
  place = jnp.floor(4 * (lam - lambda_min) / (lambda_max - lambda_min))
  is_in = jnp.clip(place, 0, 3) == jnp.arange(4)[:, None]  # (4, B)
  sums, counts = jnp.where(is_in, values, 0).sum(1), is_in.sum(1)
  return {f'{name}_quarter_{k + 1}': Mean(sums[k], counts[k]) for k in range(4)}
