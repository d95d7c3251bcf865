"""What a method is: four pure functions."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from cfg_jax.core.state import Mean, TrainState
from cfg_jax.data.batches import Batch
from cfg_jax.equations.conditioning import Cond


class Request(NamedTuple):
  """What is to be drawn: B samples, each from a key of its own."""

  keys: jax.Array  # (B,)
  cond: Cond
  knobs: dict[str, jax.Array]  # of the guidance rule, (B,) each


class Method(NamedTuple):
  """A trained thing, as pure functions; `make` of its file gives one for a config."""

  init: Callable[[int], TrainState]  # of the seed; trace it under jit to place the state
  loss: Callable[[dict, Batch, jax.Array], jax.Array]  # (params, batch, key): what is descended
  step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Mean]]]
  draw: Callable[[dict, Request], jax.Array]  # (params, request) → x (B, …) in [−1, 1]
