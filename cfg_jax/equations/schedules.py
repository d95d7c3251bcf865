"""Grids: the values of λ that a sampler visits, from noise to data. Each is a line of `GRIDS`.

    grid(num_steps, lambda_min, lambda_max, **knobs) -> (T,), increasing, T = num_steps

knobs: keyword-only. `linear` and `cosine` visit times of DDPM alone, exactly (a float32 λ of theirs
is a whole time of `nets.embed`), as a network needs that was trained at those: the last call is at
t = 0 and its x̃ is the sample, since ᾱ = 1 beyond. (`dpmpp` with stages, and `heun` with churn, also
call the model between the points of a grid.)
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cfg_jax.equations import diffusion
from cfg_jax.equations import knobs as knobs_lib

NUM_TIMES = 1000  # of DDPM


def paper(num_steps: int, lambda_min: float, lambda_max: float) -> jax.Array:
  """λ_1 = λ_min < … < λ_T = λ_max, from uniformly spaced u. Section 2. Shape (T,), T ≥ 2."""
  lam = diffusion.log_snr(np.linspace(1, 0, num_steps), lambda_min, lambda_max)
  return lam.at[0].set(lambda_min).at[-1].set(lambda_max)  # exact, whatever arctan and tan round to


def uniform(num_steps: int, lambda_min: float, lambda_max: float) -> np.ndarray:
  """Uniform in λ, with both ends: DPM-Solver's logSNR steps (Lu et al. 2022, section 3.3)."""
  return np.linspace(lambda_min, lambda_max, num_steps)


def edm(
  num_steps: int,
  lambda_min: float,
  lambda_max: float,
  *,
  sigma_min: float = 0.02,
  sigma_max: float = 50.0,
  rho: float = 7.0,
) -> np.ndarray:
  """Uniform in ς^{1/ρ}, ς = σ/α = e^{−λ/2}, with both ends. Karras et al. 2022, equation 5.

  EDM has ς from 80 to 0.002, and a last step to 0 that is here the model's x̃. The defaults, λ =
  ∓7.8, leave out what an 8-bit image does not show: better where steps are few.
  """
  del lambda_min, lambda_max
  root = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), num_steps)
  return -2 * rho * np.log(root)


def linear(
  num_steps: int,
  lambda_min: float,
  lambda_max: float,
  *,
  subset: str = 'fractional',
  sections: Sequence[int] = (),
) -> np.ndarray:
  """DDPM's times with β from 1e-4 to 0.02: λ from −10.1177 to 9.2102 at most. See `times`."""
  del lambda_min, lambda_max
  return ddpm_lambdas('linear')[times(num_steps, subset, sections)][::-1]


def cosine(
  num_steps: int,
  lambda_min: float,
  lambda_max: float,
  *,
  subset: str = 'fractional',
  sections: Sequence[int] = (),
) -> np.ndarray:
  """DDPM's times with ᾱ a squared cosine: λ from −19.8359 to 10.0950 at most. See `times`."""
  del lambda_min, lambda_max
  return ddpm_lambdas('cosine')[times(num_steps, subset, sections)][::-1]


def listed(
  num_steps: int, lambda_min: float, lambda_max: float, *, lambdas: Sequence[float] = ()
) -> np.ndarray:
  """The λ that are given, increasing; num_steps is how many."""
  del num_steps, lambda_min, lambda_max
  return np.asarray(lambdas, float)


def learned(num_steps: int, lambda_min: float, lambda_max: float) -> jax.Array:
  """A network's own, from its checkpoint: see `gamma.lambda_grid`. Here it is a name alone."""
  raise ValueError(f'grid=learned {LEARNED}.')


LEARNED = 'is of a network that has learned its schedule, of method vdm: use another grid'
GRIDS: dict[str, Callable] = {
  'paper': paper,
  'linear': linear,
  'cosine': cosine,
  'edm': edm,
  'uniform': uniform,
  'listed': listed,
}


@functools.cache
def ddpm_lambdas(schedule: str) -> np.ndarray:
  """λ_t = log(ᾱ_t/(1 − ᾱ_t)) at DDPM's times t = 0, …, 999, decreasing: float64 (1000,).

  ᾱ_t = Π_{s ≤ t} (1 − β_s). Linear: β from 1e-4 to 0.02 (Ho et al. 2020, section 4). Cosine:
  1 − β_t = f(t + 1)/f(t), at least 0.001, with f(t) = cos²(π/2·(t/1000 + 0.008)/1.008) (Nichol &
  Dhariwal 2021, equation 17).
  """
  if schedule == 'linear':
    one_minus_beta = 1 - np.linspace(1e-4, 0.02, NUM_TIMES)
  else:
    f = np.square(np.cos(np.pi / 2 * (np.arange(NUM_TIMES + 1) / NUM_TIMES + 0.008) / 1.008))
    one_minus_beta = np.maximum(f[1:] / f[:-1], 0.001)
  log_alpha2 = np.cumsum(np.log(one_minus_beta))
  return log_alpha2 - np.log(-np.expm1(log_alpha2))


def times(num_steps: int, subset: str, sections: Sequence[int] = ()) -> list[int]:
  """The times of DDPM that are kept, increasing from 0; fewer or more where a rule can't give T.

  subset: `fractional`, evenly spaced and rounded, with both ends (guided-diffusion's "250"), in
  each of as many equal sections as `sections` has counts, if it has any ("10,10,15"); `stride`, the
  least whole stride that gives T of them (guided-diffusion's "ddim25"); `uniform`, of the stride
  ⌊1000/T⌋ (DDIM); `quadratic`, squares up to 800 (DDIM, for CIFAR-10).
  """
  return list(SUBSETS[subset](num_steps, sections))


def _fractional(num_steps, sections):
  counts = sections or (num_steps,)
  kept, start = [], 0
  for i, count in enumerate(counts):
    size = NUM_TIMES // len(counts) + (i < NUM_TIMES % len(counts))
    stride, at = (size - 1) / (count - 1) if count > 1 else 1, 0.0
    for _ in range(count):  # added up, not multiplied, so that halves round as there
      kept.append(start + round(at))
      at += stride
    start += size
  return kept


def _stride(num_steps, _):
  strides = (range(0, NUM_TIMES, stride) for stride in range(1, NUM_TIMES))
  return next((kept for kept in strides if len(kept) == num_steps), ())


def _uniform(num_steps, _):
  return range(0, NUM_TIMES, max(NUM_TIMES // num_steps, 1))


def _quadratic(num_steps, _):
  return np.square(np.linspace(0, math.sqrt(0.8 * NUM_TIMES), num_steps)).astype(int)


SUBSETS: dict[str, Callable] = {
  'fractional': _fractional,
  'stride': _stride,
  'uniform': _uniform,
  'quadratic': _quadratic,
}


def grid_problems(
  num_steps: int,
  grid: str,
  lambda_min: float = -math.inf,
  lambda_max: float = math.inf,
  **knobs: Any,
) -> Iterator[tuple[str, str]]:
  """What is wrong with a grid and its knobs: (field, remedy); nothing if it is a grid."""
  if grid == 'learned':
    yield 'grid', LEARNED
    return
  if grid not in GRIDS:
    yield 'grid', f'is none of {", ".join(GRIDS)}'
    return
  if not 2 <= num_steps <= 10**6:
    yield 'num_steps', 'must be at least 2: the grid of λ has two ends'
    return
  knobs = knobs_lib.defaults(GRIDS[grid]) | knobs
  found = list(_PROBLEMS.get(grid, lambda *_, **__: ())(num_steps, **knobs))
  yield from found
  if found or grid in ('paper', 'uniform'):  # these end where the model does
    return
  lam = GRIDS[grid](num_steps, lambda_min, lambda_max, **knobs)
  slack = 1e-3  # a config writes its ends with few digits
  if lam[0] < lambda_min - slack or lam[-1] > lambda_max + slack:
    yield (
      'grid',
      f'goes from λ = {lam[0]:.4g} to {lam[-1]:.4g}, where the model is not trained: '
      f'diffusion has {lambda_min:.4g} to {lambda_max:.4g}',
    )


def _edm_problems(num_steps, sigma_min, sigma_max, rho):
  del num_steps
  if not 0 < sigma_min < sigma_max < math.inf:
    yield 'sigma_min', f'must be above 0 and below sigma_max={sigma_max}; EDM has 0.002 and 80'
  if not 1 <= rho <= 100:
    yield 'rho', 'must be 1 to 100; EDM has 7'


def _listed_problems(num_steps, lambdas):
  if len(lambdas) != num_steps:
    yield 'lambdas', f'has {len(lambdas)} values, and num_steps={num_steps}'
  elif not np.all(np.isfinite(lambdas)) or np.any(np.diff(np.float32(lambdas)) <= 0):
    yield 'lambdas', 'must increase, from noise to data'


def _subset_problems(num_steps, subset, sections):
  if subset not in SUBSETS:
    yield 'subset', f'is none of {", ".join(SUBSETS)}'
    return
  if sections and (subset != 'fractional' or sum(sections) != num_steps or min(sections) < 1):
    yield 'sections', f'must be counts that add up to num_steps={num_steps}, of subset=fractional'
    return
  if not _is_subset(num_steps, subset, sections):
    if sections:
      yield 'sections', f'asks more of a section than its {NUM_TIMES // len(sections)} times'
      return
    steps = range(2, NUM_TIMES + 1)
    near = min((n for n in steps if _is_subset(n, subset)), key=lambda n: abs(n - num_steps))
    yield 'num_steps', f'is not what subset={subset} can take of {NUM_TIMES} times; try {near}'


def _is_subset(num_steps, subset, sections=()):
  kept = times(num_steps, subset, sections)
  return len(kept) == num_steps == len(set(kept)) and kept[-1] < NUM_TIMES


_PROBLEMS: dict[str, Callable] = {
  'edm': _edm_problems,
  'listed': _listed_problems,
  'linear': _subset_problems,
  'cosine': _subset_problems,
}


def problems(section: Mapping[str, float], _: object = None) -> Iterator[tuple[str, str]]:
  """What is wrong with the config's section `diffusion`, the ends of λ: (field, remedy)."""
  wrong = [field for field in section if field not in ('lambda_min', 'lambda_max')]
  for field in wrong:
    yield field, 'is no field of this section, which has lambda_min, lambda_max'
  for field in ('lambda_min', 'lambda_max'):
    value = section.get(field)
    if not (knobs_lib.is_like(value, 0.0) and abs(value) <= 80):  # float32 holds e^λ
      yield field, 'must be a number from -80 to 80; the paper has -20 and 20'
      wrong.append(field)
  if not wrong and section['lambda_min'] >= (high := section['lambda_max']):
    yield 'lambda_min', f'must be less than diffusion.lambda_max={high}; the paper has -20 and 20'
