"""Grids: the values of λ that a sampler visits, from noise to data. Each is a line of `GRIDS`."""

import math
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from cfg_jax.equations import diffusion


def paper(num_steps: int, lambda_min: float, lambda_max: float) -> jax.Array:
  """λ_1 = λ_min < … < λ_T = λ_max, from uniformly spaced u. Section 2. Shape (T,), T ≥ 2."""
  lam = diffusion.log_snr(np.linspace(1, 0, num_steps), lambda_min, lambda_max)
  return lam.at[0].set(lambda_min).at[-1].set(lambda_max)  # exact, whatever arctan and tan round to


GRIDS: dict[str, Callable] = {'paper': paper}


def problems(section: Mapping[str, float], _: object = None) -> Iterator[tuple[str, str]]:
  """What is wrong with the config's section `diffusion`, the ends of λ: (field, remedy)."""
  low, high = section['lambda_min'], section['lambda_max']
  for field in ('lambda_min', 'lambda_max'):
    if not math.isfinite(section[field]):
      yield field, 'must be a finite number; the paper has -20 and 20'
  if low >= high:
    yield 'lambda_min', f'must be less than diffusion.lambda_max={high}; the paper has -20 and 20'
