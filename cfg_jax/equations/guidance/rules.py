"""Rules: how two predictions of one z become one. Each is a function, and a line of `RULES`.

    rule(towards, away, z, lam, memory, **knobs) -> (Prediction, memory)

towards, away: `Prediction`s of z (B, …) at lam (B,); knobs: keyword-only, (B,) or scalars, w among
them; memory: an array like z, zeros at the first step, for a rule that looks back, or what
`LOOKS_BACK` says. A sample's own rows alone decide what it gets. Where w = 0 a rule gets `towards`
twice, unless `ALONE` says else.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from cfg_jax.equations import knobs
from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance import adaptive as adaptive_lib
from cfg_jax.equations.guidance import feedback as feedback_lib
from cfg_jax.equations.guidance import w_of_lambda
from cfg_jax.equations.guidance.adaptive import adaptive
from cfg_jax.equations.guidance.cfg_pp import cfg_pp
from cfg_jax.equations.guidance.classifier_free import classifier_free, guided_eps
from cfg_jax.equations.guidance.directions import (
  apg,
  apg_comfyui,
  apg_diffusers,
  cfg_zero,
  rescale,
  tcfg,
)
from cfg_jax.equations.guidance.feedback import feedback
from cfg_jax.equations.guidance.w_of_lambda import beta, cosine, interval, linear


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


RULES: dict[str, Callable] = {
  'classifier_free': classifier_free,
  'mean_shift': mean_shift,
  'interval': interval,
  'linear': linear,
  'cosine': cosine,
  'beta': beta,
  'rescale': rescale,
  'apg': apg,
  'apg_comfyui': apg_comfyui,
  'apg_diffusers': apg_diffusers,
  'cfg_pp': cfg_pp,
  'cfg_zero': cfg_zero,
  'tcfg': tcfg,
  'adaptive': adaptive,
  'feedback': feedback,
}


def _never(lam, memory, **knobs):
  return False


# By the rule, (lam, memory, **knobs) → where it needs `towards` alone, if that is not w = 0.
ALONE: dict[Callable, Callable] = {
  interval: w_of_lambda.outside,
  adaptive: adaptive_lib.agreed,
  cfg_pp: _never,
  apg_comfyui: _never,
  apg_diffusers: _never,
}

# Of `ALONE`, those that look at λ and w alone: steps before they guide are the same for every w.
BY_LAMBDA = (interval,)
# Rules that are told how likely the path so far is under both predictions: what each remembers at
# first, of z. As memory it gets (that, log p(path|c)/p(path) (B,)), and returns what to remember.
LOOKS_BACK: dict[Callable, Callable] = {feedback: feedback_lib.at_first}


def unguided(knobs: Mapping[str, Any], rule: Callable = classifier_free) -> Any:
  """Where a rule with these knobs never needs a second prediction: a bool, or (B,) of them."""
  return False if ALONE.get(rule) is _never else knobs['w'] == 0


def alone(rule: Callable, lam: Any, memory: Any, knobs: Mapping[str, Any]) -> Any:
  """Where a rule at lam (B,), with its memory (B, …), needs no second prediction: bool, (B,)."""
  return ALONE[rule](lam, memory, **knobs) if rule in ALONE else unguided(knobs, rule)


def knobs_of(section: Mapping[str, Any]) -> dict[str, Any]:
  """The knobs that the config's section `sample.guidance` sets, `w` being a tuple of values."""
  return {name: value for name, value in section.items() if name not in NO_KNOBS}


def fitted(section: Mapping[str, Any]) -> dict[str, Any]:
  """The section `sample.guidance` with all the knobs of the rule that it names, and no others.

  Each is as it was, or has its default if it has one. Unchanged where there is no such rule.
  """
  if section.get('rule') not in RULES:
    return dict(section)
  rule = RULES[section['rule']]
  kept = {k: v for k, v in section.items() if k in NO_KNOBS or k in knobs.names(rule)}
  return kept | {k: v for k, v in knobs.defaults(rule).items() if k not in kept}


# Of the config's section `sample.guidance`, what is the pair's; all else are knobs of the rule.
NO_KNOBS = ('pair', 'rule', 'guide', 'guide_step', 'against')
# Of knobs: the least value, the greatest, and what to say of any other.
RANGES = {
  'lo': (-1e3, 1e3, 'is a λ: use -1000 to 1000; a grid has -20 to 20'),
  'hi': (-1e3, 1e3, 'is a λ: use -1000 to 1000; a grid has -20 to 20'),
  'a': (1, 100, 'must be 1 to 100; β-CFG has 2'),
  'b': (1, 100, 'must be 1 to 100; β-CFG has 2'),
  'phi': (0, 1, 'must be in [0, 1]; the paper has 0.7, and 0 is classifier-free'),
  'eta': (0, 1, 'must be in [0, 1]; the paper has 0, and 1 keeps the whole direction'),
  'radius': (0, 1e6, 'must be 0 to 1e6, and 0 shortens nothing; the paper has 2.5 and 5'),
  'momentum': (-0.99, 0.99, 'must be -0.99 to 0.99; the paper has -0.5 and -0.75'),
  'pi': (1e-6, 1 - 1e-6, 'must be in (0, 1), by 1e-6 or more; the paper has 0.999 and above'),
  'temperature': (0, 1e3, "must be 0 to 1000; 1 is Bayes' rule, and the paper's is about 0.01"),
  'offset': (-1e3, 1e3, "must be -1000 to 1000; 0 is Bayes' rule, and the paper's is -14.6"),
  'theta': (-1, 2, 'is a cosine: use -1 to 1, and 1 for guidance at every step'),
}


def problems(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """What is wrong with the config's section `sample.guidance`, pair apart: (field, remedy)."""
  if section.get('rule') not in RULES:
    yield 'rule', f'is none of {", ".join(RULES)}'
    return
  rule, own = RULES[section['rule']], knobs_of(section)
  wrong = list(knobs.problems(own, rule))
  yield from wrong
  if not wrong:
    yield from _out_of_range(rule, knobs.defaults(rule) | own)
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
  elif rule is cfg_pp and not all(0 <= x <= 1 for x in w):
    yield 'w', "is CFG++'s: use 0 to 1, where 0 is the unconditional model"
  elif rule is feedback and not all(x >= 0 for x in w):
    yield 'w', 'is the most that feedback guides: use 0 or more'


def _out_of_range(rule, own):
  ranges = {name: RANGES[name] for name in knobs.defaults(rule) if name in RANGES}
  for name, (low, high, remedy) in ranges.items():
    if not low <= own[name] <= high:  # nor is NaN
      yield name, remedy
      return
  if rule is interval and not own['lo'] < own['hi']:
    yield 'hi', f'must be over lo={own["lo"]:g}: w holds where lo ≤ λ < hi'
