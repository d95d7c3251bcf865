"""Which differences between numbers are more than noise: paired errors, and how many of them count.

± is one standard error throughout. A difference counts where it is more than about two of its own
errors, so that of twenty that are nothing but noise one counts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cfg_jax.report.curves import Curve

# Student's t: half the interval that holds 95 %, by degrees of freedom from 1; beyond, 2.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


class Difference(NamedTuple):
  """A difference of two numbers, its error (nan: not known), and how many errors count."""

  value: float
  error: float
  bound: float = 2.0

  @property
  def known(self) -> bool:
    """Whether there is an error."""
    return math.isfinite(self.error)

  @property
  def clear(self) -> bool:
    """Whether it is more than noise; where no error is known, whether it is any."""
    return abs(self.value) > (self.bound * self.error if self.known else 0)


def differences(curve: Curve, metric: str, pairs: Sequence[tuple[int, int]]) -> list[Difference]:
  """A curve's metric at point i less that at point j, for each (i, j).

  Of several seeds: by seed. Of one: paired by image, where both points have deviations, and `bound`
  is what the largest of all these differences exceeds one time in twenty by noise alone.
  """
  values = curve.values(metric)
  found = [float(values[i] - values[j]) for i, j in pairs]
  if curve.members:
    by_seed = np.stack([member.values(metric) for member in curve.members])
    return [_of_seeds(by_seed[:, i] - by_seed[:, j]) for i, j in pairs]
  if metric in curve.deviations and pairs:
    noise = curve.deviations[metric]
    moved = np.stack([noise[:, i] - noise[:, j] for i, j in pairs], axis=1)
    errors = np.sqrt(np.mean(moved**2, axis=0))
    scaled = np.abs(moved) / np.where(errors > 0, errors, 1)
    largest = scaled.max(axis=1, initial=0, where=np.isfinite(scaled))
    bound = max(2.0, float(np.quantile(largest, 0.95)))
    return [Difference(v, float(e), bound) for v, e in zip(found, errors)]
  errors = curve.error(metric)
  return [Difference(v, math.hypot(errors[i], errors[j])) for v, (i, j) in zip(found, pairs)]


def _of_seeds(values: np.ndarray) -> Difference:
  """The mean of what each seed says, (seeds,)."""
  m = len(values)
  error = float(np.std(values, ddof=1) / math.sqrt(m))
  return Difference(float(np.mean(values)), error, student(m))


def student(seeds: int) -> float:
  """How many errors of a mean of so many seeds count."""
  return _T95[seeds - 2] if seeds - 2 < len(_T95) else 2.0
