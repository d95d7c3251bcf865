"""Samplers: a grid of λ (see `schedules`) times a solver (a file each), through one loop.

They take a function of z and λ, and never hear of w: see `guidance.guide`.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion, knobs
from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.samplers import loop
from cfg_jax.equations.samplers.ddpm import ddpm
from cfg_jax.equations.schedules import GRIDS

SOLVERS: dict[str, Callable] = {'ddpm': ddpm}


def lambda_grid(
  num_steps: int, grid: str = 'paper', lambda_min: float = -20.0, lambda_max: float = 20.0
) -> jax.Array:
  """The λ that a sampler visits, increasing: (T,), T = num_steps ≥ 2. grid: of `GRIDS`."""
  if num_steps < 2:
    raise ValueError(f'num_steps={num_steps} must be at least 2: the grid has two ends.')
  return GRIDS[grid](num_steps, lambda_min, lambda_max)


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
) -> jax.Array:
  """x̃ of Algorithm 2: T = num_steps evaluations of ε̃, and T − 1 noisy steps between them.

  eps_fn: (z (B, *shape), lam (B,)) → (B, *shape), guidance included; keys: (B,) PRNG keys, one a
  sample; shape: of one sample, such as (H, W, C); v ∈ [0, 1]; clip_x: see `sample_model`. Returns
  (B, *shape).
  """

  def model(z, lam, memory):
    eps = eps_fn(z, lam)
    return Prediction(diffusion.predict_x(z, eps, lam), eps), memory

  lam = lambda_grid(num_steps, grid, lambda_min, lambda_max)
  return sample_model(model, keys, shape, lam, sampler=sampler, clip_x=clip_x, v=v)


def sample_model(
  model: loop.Model,
  keys: jax.Array,
  shape: tuple[int, ...],
  lam: jax.Array,
  *,
  sampler: str,
  clip_x: bool,
  **solver_knobs: Any,
) -> jax.Array:
  """Draws x along lam (T,) with a model (z, lam, memory) → (prediction, memory).

  sampler: of `SOLVERS`, and solver_knobs its own; clip_x: clip every x̃ to [−1, 1] (not in the
  paper: the authors' code does it, and unclipped the first step multiplies an error of ε by up to
  273). Others as for `sample`.
  """

  def clipped(z, lam, memory):
    prediction, memory = model(z, lam, memory)
    return prediction._replace(x=jnp.clip(prediction.x, -1, 1)), memory

  solver = functools.partial(SOLVERS[sampler], **solver_knobs)
  return loop.run(clipped if clip_x else model, solver, keys, shape, lam)


def knobs_of(section: Mapping[str, Any]) -> dict[str, Any]:
  """The solver's knobs in the config's section `sample.sampler`."""
  common = ('name', 'grid', 'num_steps', 'clip_x')
  return {name: value for name, value in section.items() if name not in common}


def problems(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """What is wrong with the config's section `sample.sampler`: (field, remedy)."""
  if section['name'] not in SOLVERS:
    yield 'name', f'is none of {", ".join(SOLVERS)}'
    return
  if section['grid'] not in GRIDS:
    yield 'grid', f'is none of {", ".join(GRIDS)}'
  if not 2 <= section['num_steps'] <= 10**6:
    yield 'num_steps', 'must be at least 2: the grid of λ has two ends'
  yield from knobs.problems(SOLVERS[section['name']], knobs_of(section))
  if not 0 <= section.get('v', 0) <= 1:
    yield 'v', 'must be in [0, 1]; the paper has 0.3 and 0.2'
