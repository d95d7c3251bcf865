"""Samplers: a grid of λ (see `schedules`) times a solver (a file each), through one loop.

They take a function of z and λ, and never hear of w: see `guidance.guide`.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.equations import diffusion, schedules
from cfg_jax.equations import knobs as knobs_lib
from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance import smc
from cfg_jax.equations.samplers import loop
from cfg_jax.equations.samplers.clip import clip
from cfg_jax.equations.samplers.ddim import ddim
from cfg_jax.equations.samplers.ddpm import ddpm
from cfg_jax.equations.samplers.ddpm_shifted import ddpm_shifted
from cfg_jax.equations.samplers.dpmpp import dpmpp
from cfg_jax.equations.samplers.heun import churn, heun
from cfg_jax.equations.schedules import GRIDS

NAMED = GRIDS | {'learned': schedules.learned}  # that one only of a network which has it
SOLVERS: dict[str, Callable] = {
  'ddpm': ddpm,
  'ddpm_shifted': ddpm_shifted,
  'ddim': ddim,
  'heun': heun,
  'dpmpp': dpmpp,
}
# In place of a solver and a rule: particles for each sample, guided by both predictions.
PARTICLES: dict[str, Callable] = {'smc': smc.draw}
NAMES = SOLVERS | PARTICLES
TELLING = ('ddpm',)  # those that tell how likely a step was, see `loop.Memory`
KINDS = {bool: 'true or false', int: 'a whole number', str: 'text'}
# Of `sample.sampler`, each with a value of its type; all others are knobs.
COMMON = {'name': 'ddpm', 'grid': 'paper', 'num_steps': 256, 'clip_x': True}


def lambda_grid(
  num_steps: int,
  grid: str = 'paper',
  lambda_min: float = -20.0,
  lambda_max: float = 20.0,
  **knobs: Any,
) -> jax.Array:
  """The λ that a sampler visits, increasing: (T,), T = num_steps ≥ 2.

  grid: of `GRIDS`, and knobs its own. Raises ValueError where it has no such grid.
  """
  for field, remedy in schedules.grid_problems(num_steps, grid, lambda_min, lambda_max, **knobs):
    value = {'num_steps': num_steps, 'grid': grid, **knobs}.get(field)
    raise ValueError(f'{field}={value!r} {remedy}.')
  return jnp.asarray(GRIDS[grid](num_steps, lambda_min, lambda_max, **knobs), float)


def sample(
  eps_fn: Callable[[jax.Array, jax.Array], jax.Array],
  keys: jax.Array,
  shape: tuple[int, ...],
  *,
  num_steps: int,
  v: float | jax.Array = 0.3,
  sampler: str = 'ddpm',
  grid: str = 'paper',
  lambda_min: float = -20.0,
  lambda_max: float = 20.0,
  clip_x: bool = True,
  **knobs: Any,
) -> jax.Array:
  """x̃ of Algorithm 2: T = num_steps evaluations of ε̃, and T − 1 noisy steps between them.

  eps_fn: (z (B, *shape), lam (B,)) → (B, *shape), guidance included; keys: (B,) PRNG keys, one a
  sample; shape: of one sample, such as (H, W, C); v ∈ [0, 1], of `ddpm` alone; sampler, grid: of
  `SOLVERS` and `GRIDS`, with the knobs of both; clip_x: see `sample_model`. Returns (B, *shape).
  """

  def model(z, lam, memory):
    eps = eps_fn(z, lam)
    return Prediction(diffusion.predict_x(z, eps, lam), eps), memory

  of_grid = knobs_lib.pick(GRIDS[grid], knobs)
  others = {name: value for name, value in knobs.items() if name not in of_grid}
  if sampler == 'ddpm':
    others['v'] = v
  lam = lambda_grid(num_steps, grid, lambda_min, lambda_max, **of_grid)
  return sample_model(model, keys, shape, lam, sampler=sampler, clip_x=clip_x, **others)


def sample_model(
  model: loop.Model,
  keys: jax.Array,
  shape: tuple[int, ...],
  lam: jax.Array,
  *,
  sampler: str,
  clip_x: bool,
  quantile: float = 0.0,
  part: loop.Part = loop.WHOLE,
  **solver_knobs: Any,
) -> jax.Array | loop.Carry:
  """Draws x along lam (T,) with a model (z, lam, memory) → (prediction, memory).

  sampler: of `SOLVERS`, and solver_knobs its own; clip_x: clip every x̃ to [−1, 1] (not in the
  paper: the authors' code does it, and unclipped the first step multiplies an error of ε by up to
  273), or with a quantile as `clip` says. ε̃ follows, so that z = α x̃ + σ ε̃ holds as before. part:
  of the steps, see `loop.run`. Others as for `sample`.
  """

  @functools.wraps(model)  # with its `memory`
  def clipped(z, lam, memory):
    prediction, memory = model(z, lam, memory)
    x = clip(prediction.x, quantile=quantile)
    alpha, sigma = diffusion.alpha_sigma(diffusion.over_batch(lam, z))
    eps = prediction.eps + alpha / sigma * (prediction.x - x)
    if (smooth := prediction.smooth) is not None:
      smooth = clip(smooth, quantile=quantile)
    sides = tuple(clip(side, quantile=quantile) for side in prediction.sides)
    return prediction._replace(x=x, eps=eps, smooth=smooth, sides=sides), memory

  solver = functools.partial(SOLVERS[sampler], **solver_knobs)
  return loop.run(clipped if clip_x else model, solver, keys, shape, lam, part)


def grid_of(section: Mapping[str, Any], lambda_min: float, lambda_max: float) -> jax.Array:
  """The grid of the config's section `sample.sampler`, for a model of these ends: (T,)."""
  knobs = knobs_lib.pick(GRIDS[section['grid']], section)
  return lambda_grid(section['num_steps'], section['grid'], lambda_min, lambda_max, **knobs)


def settings_of(section: Mapping[str, Any]) -> dict[str, Any]:
  """What the section `sample.sampler` tells `sample_model`: sampler, clip_x, quantile and knobs.

  Or, without a sampler, `smc.draw`.
  """
  knobs = knobs_lib.pick(clip, section) | knobs_lib.pick(NAMES[section['name']], section)
  which = {} if section['name'] in PARTICLES else {'sampler': section['name']}
  return {**which, 'clip_x': section['clip_x'], **knobs}


def fitted(section: Mapping[str, Any]) -> dict[str, Any]:
  """The section `sample.sampler` with all the knobs of the parts that it names, and no others.

  Each is as it was, or has its default. Unchanged where there is no such solver or grid.
  """
  if section.get('name') not in NAMES or section.get('grid') not in NAMED:
    return dict(section)
  functions = NAMES[section['name']], NAMED[section['grid']], clip
  defaults = {k: v for function in functions for k, v in knobs_lib.defaults(function).items()}
  kept = {k: v for k, v in section.items() if k in COMMON or k in defaults}
  return kept | {k: v for k, v in defaults.items() if k not in kept}


def particles(section: Mapping[str, Any]) -> int:
  """How many paths the section `sample.sampler` draws for each sample."""
  return section['particles'] if section['name'] in PARTICLES else 1


def calls(section: Mapping[str, Any]) -> int:
  """How often the section `sample.sampler` calls the model for a sample; ∅ is not counted apart."""
  knobs = knobs_lib.defaults(NAMES[section['name']]) | dict(section)
  two = section['name'] == 'heun' or (
    section['name'] == 'dpmpp' and knobs['order'] == 2 and knobs['singlestep']
  )
  return particles(section) * ((2 if two else 1) * (section['num_steps'] - 1) + 1)


def visited(section: Mapping[str, Any], lambda_min: float, lambda_max: float) -> np.ndarray:
  """The λ of each call of the model that the section `sample.sampler` makes, in order: `calls`.

  Of a learned grid those that it begins with, uniform in λ.
  """
  if section['grid'] == 'learned':
    section = {**section, 'grid': 'uniform'}
  lam = grid_of(section, lambda_min, lambda_max)
  if calls(section) == particles(section) * len(lam):
    return np.repeat(np.asarray(lam), particles(section))
  first, second = lam[:-1], lam[1:]
  if section['name'] == 'heun':
    knobs = knobs_lib.pick(churn, knobs_lib.defaults(heun) | dict(section))
    first = first - 2 * jnp.log1p(churn(first, len(lam), **knobs))
  else:
    second = 0.5 * (first + second)
  return np.append(np.stack([first, second], axis=1).ravel(), lam[-1])


def problems(
  section: Mapping[str, Any], ends: Mapping[str, float] | None = None, learns: bool = False
) -> Iterator[tuple[str, str]]:
  """What is wrong with the config's section `sample.sampler`: (field, remedy).

  A field that is not of `COMMON` is a knob of the grid, of the solver, or of `clip`, by its name.
  ends: lambda_min and lambda_max of the model. learns: whether the model has a grid `learned`.
  """
  wrong = [
    (field, f'must be {KINDS[type(like)]}' if field in section else 'is lacking')
    for field, like in COMMON.items()
    if not knobs_lib.is_like(section.get(field), like)
  ]
  yield from wrong
  if wrong:
    return
  unknown = [
    (field, f'is none of {", ".join(table)}')
    for field, table in (('name', NAMES), ('grid', NAMED))
    if section[field] not in table
  ]
  yield from unknown
  if unknown:
    return
  solver, grid = NAMES[section['name']], NAMED[section['grid']]
  knobs = {name: value for name, value in section.items() if name not in COMMON}
  wrong = list(knobs_lib.problems(knobs, solver, grid, clip))
  yield from wrong
  if wrong:
    return
  of_grid = knobs_lib.pick(grid, knobs)
  name = 'uniform' if learns and section['grid'] == 'learned' else section['grid']
  yield from schedules.grid_problems(section['num_steps'], name, **(ends or {}), **of_grid)
  for name, (low, high, remedy) in RANGES.items():
    if not low <= knobs.get(name, low) <= high:
      yield name, remedy
  if knobs.get('quantile') and not section['clip_x']:
    yield 'quantile', 'says how x is clipped: set clip_x=true'
  if section['name'] == 'dpmpp':
    of_2m = knobs_lib.defaults(dpmpp) | knobs_lib.pick(dpmpp, knobs)
    if of_2m['order'] == 2 and not of_2m['singlestep'] and section['num_steps'] == 2:
      yield 'num_steps', 'is one step, which has no history for order 2: use 3, or order=1'


# Of knobs: the least value, the greatest, and what to say of any other.
RANGES = {
  'v': (0, 1, 'must be in [0, 1]; the paper has 0.3 and 0.2'),
  'eta': (0, 1, 'must be in [0, 1]: 0 is deterministic, 1 is DDPM'),
  'order': (1, 2, 'is none of 1, 2'),
  'particles': (1, 2**20, 'must be 1 or more: how many paths each sample is chosen of'),
  'resample_below': (0, 1, 'is a share: use 0, which never resamples, to 1, at every step'),
  's_churn': (0, 1e6, 'must be at least 0, for no churn; EDM has 40 for ImageNet 64×64'),
  's_min': (0, 1e6, 'must be at least 0; EDM has 0.05 for ImageNet 64×64'),
  's_max': (0, 1e6, 'must be 0 to 1e6; EDM has 50 for ImageNet 64×64'),
  's_noise': (0, 10, 'must be 0 to 10; EDM has 1.003 for ImageNet 64×64'),
  'quantile': (0, 1, 'must be in [0, 1]; Imagen has 0.995, and 0 clips at 1'),
}
