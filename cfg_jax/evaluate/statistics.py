"""Mean and covariance of features, from n, Σf and Σffᵀ in float64; parts add up with `+`."""

import dataclasses
import warnings

import numpy as np

from cfg_jax.core.errors import UserError


@dataclasses.dataclass
class Moments:
  """n, Σf (D,) and Σffᵀ (D, D) of n feature rows: all that a Fréchet distance needs.

  `Moments.zeros(D)`, then `update` batch by batch; moments of parts (shards, processes) add up.
  """

  n: int
  sum: np.ndarray
  outer: np.ndarray

  @classmethod
  def zeros(cls, dim: int) -> 'Moments':
    """The moments of no rows of `dim` features."""
    return cls(0, np.zeros(dim), np.zeros((dim, dim)))

  @classmethod
  def of(cls, features: np.ndarray) -> 'Moments':
    """The moments of features (N, D)."""
    features = np.asarray(features)
    return cls.zeros(features.shape[-1]).update(features)

  def update(self, features: np.ndarray, mask: np.ndarray | None = None) -> 'Moments':
    """Adds rows (N, D), in place, those where mask (N,) is true; returns itself.

    Raises ValueError on another width, and UserError on values that are not finite, before anything
    is added.
    """
    f = np.asarray(features, np.float64)
    if f.ndim != 2 or f.shape[1] != self.sum.size:
      raise ValueError(f'features have shape {f.shape}; these moments take (N, {self.sum.size}).')
    if mask is not None:
      f = f[np.asarray(mask, bool)]
    if not np.isfinite(f).all():
      raise UserError('NaN or infinite features; look at the images or the weights.')
    self.n += len(f)
    self.sum += f.sum(axis=0)
    self.outer += f.T @ f
    return self

  def __add__(self, other: 'Moments') -> 'Moments':
    """The moments of both sets of rows."""
    if self.sum.size != other.sum.size:
      raise ValueError(
        f'moments of {self.sum.size} and of {other.sum.size} features do not add up.'
      )
    return Moments(self.n + other.n, self.sum + other.sum, self.outer + other.outer)

  @property
  def mean(self) -> np.ndarray:
    """μ, (D,)."""
    if self.n < 1:
      raise ValueError('no images: a mean needs at least one.')
    return self.sum / self.n

  @property
  def cov(self) -> np.ndarray:
    """Σ, (D, D), the unbiased estimate (n − 1), as every FID implementation takes it.

    Warns where n ≤ D: the estimate is singular, and a Fréchet distance from it far too high.
    """
    if self.n < 2:
      raise ValueError(f'{self.n} image(s): a covariance needs at least two.')
    if self.n <= self.sum.size:
      warnings.warn(
        f'{self.n} images for {self.sum.size} features: their covariance is singular, and '
        'a Fréchet distance strongly biased; use more images.',
        stacklevel=2,
      )
    mean = self.mean
    return (self.outer - self.n * np.outer(mean, mean)) / (self.n - 1)
