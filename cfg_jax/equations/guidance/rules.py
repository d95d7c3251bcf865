"""Rules: how two predictions of one z become one. Each is a function, and a line of `RULES`.

    rule(towards, away, z, lam, memory, **knobs) -> (Prediction, memory)

towards, away: `Prediction`s of z (B, …) at lam (B,); knobs: keyword-only, (B,) or scalars, w among
them; memory: an array like z, zeros at the first step, for a rule that looks back.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from cfg_jax.equations import diffusion, knobs
from cfg_jax.equations.diffusion import Prediction


def guided_eps(eps_cond: jax.Array, eps_uncond: jax.Array, w: float | jax.Array) -> jax.Array:
  """ε̃ = (1 + w) ε(z, c) − w ε(z). Section 3, equation 6; Algorithm 2.

  eps_cond, eps_uncond: (B, …); w: a scalar, or (B,) for one strength a sample. Returns (B, …).
  """
  w = diffusion.over_batch(w, eps_cond)
  return (1 + w) * eps_cond - w * eps_uncond


def w_from_scale(s: float | jax.Array) -> float | jax.Array:
  """W = s − 1, for the scale s (or γ) of the other literature, where 1 means no guidance."""
  return s - 1


def classifier_free(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
) -> tuple[Prediction, jax.Array]:
  """The paper's rule: `guided_eps` of the two ε. Algorithm 2."""
  eps = guided_eps(towards.eps, away.eps, w)
  return Prediction(diffusion.predict_x(z, eps, lam), eps), memory


def mean_shift(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
) -> tuple[Prediction, jax.Array]:
  """The unguided x beside the guided ε, of which the solver `ddpm_shifted` makes ADM's Algorithm 1.

  That shifts the mean by w Σ ∇_z log p(c|z), where Algorithm 2, and `classifier_free`, move ε.
  """
  del z, lam
  return Prediction(towards.x, guided_eps(towards.eps, away.eps, w)), memory


RULES: dict[str, Callable] = {'classifier_free': classifier_free, 'mean_shift': mean_shift}


def unguided(knobs: Mapping[str, Any]) -> Any:
  """Where a rule with these knobs needs no second prediction: a bool, or (B,) of them."""
  return knobs['w'] == 0


def knobs_of(section: Mapping[str, Any]) -> dict[str, Any]:
  """The knobs that the config's section `sample.guidance` sets, `w` being a tuple of values."""
  return {name: value for name, value in section.items() if name not in ('pair', 'rule', 'guide')}


def problems(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """What is wrong with the config's section `sample.guidance`, pair apart: (field, remedy)."""
  if section.get('rule') not in RULES:
    yield 'rule', f'is none of {", ".join(RULES)}'
    return
  yield from knobs.problems(knobs_of(section), RULES[section['rule']])
  w = section.get('w')
  if not isinstance(w, tuple | list) or not all(knobs.is_like(x, 0.0) for x in w):
    yield 'w', 'must be a list of numbers'
    return
  if not w:
    yield 'w', 'must name at least one guidance strength'
  if not all(abs(x) <= 1e6 for x in w):  # nor is NaN
    yield 'w', 'must be finite numbers, at most 1e6; the paper has 0 to 4'
  elif len({np.float32(x) for x in w}) < len(w):
    yield 'w', 'names a guidance strength twice, as float32 sees it'
