"""FID, IS, KID, precision/recall, density/coverage: pure functions of features, NumPy float64.

Features are (N, D) arrays of any float type, one row an image; they become float64 here. Random
choices (shuffles, subsets) come from `np.random.RandomState(seed)`, the one stream that NumPy
promises never to change, so a recorded seed gives the same number for ever. It is also the stream
of torch-fidelity, whose default seed 2020 is ours: the same features give both the same number.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_BLOCK_ROWS = 1024  # distances are computed in blocks: 50 000 × 50 000 of them would be 20 GB


class Metric(NamedTuple):
  """What a number among the metrics of a line of evals.jsonl is.

  better: which values are, 'lower' or 'higher'. spread: the entry that holds its standard
  deviation. aliases: other names it has; {extractor} stands for the extractor of the line.
  """

  name: str
  better: str
  spread: str | None = None
  aliases: tuple[str, ...] = ()


# Every metric, in the order in which tables show them. The Fréchet distance is called FID-50k where
# it is of 50 000 samples by the public Inception, FID where it is of another number of them.
METRICS = (
  Metric('FD', 'lower', aliases=('FD-{extractor}', 'FID', 'FID-50k')),
  Metric('IS', 'higher', spread='IS_std'),
  Metric('KID', 'lower', spread='KID_std'),
  Metric('accuracy', 'higher'),
  Metric('coverage', 'higher'),
  Metric('density', 'higher'),
  Metric('precision', 'higher'),
  Metric('recall', 'higher'),
  Metric('sFD', 'lower', aliases=('sFD-{extractor}', 'sFID')),
)
SPREADS = frozenset(m.spread for m in METRICS if m.spread)


def by_name(extractor: str) -> dict[str, Metric]:
  """Every name that a metric of this extractor's features may have → the metric, in order."""
  return {
    name.format(extractor=extractor): metric
    for metric in METRICS
    for name in (metric.name, *metric.aliases)
  }


def frechet_distance(
  mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
  """|μ1 − μ2|² + Tr(Σ1 + Σ2 − 2 (Σ1 Σ2)^½), the squared 2-Wasserstein distance of two Gaussians.

  mu: (D,), sigma: (D, D). Heusel et al. 2017, equation 6: the FID if the features are Inception's.
  Tr (Σ1 Σ2)^½ is the sum of √eigenvalues of Lᵀ Σ2 L, where Σ1 = L Lᵀ: symmetric, so that singular
  covariances (N ≤ D) need no offset on the diagonal, as they do with a matrix square root. They
  cost digits: 1e-8 relative, where others are good to 1e-12.
  ValueError on shapes that disagree or values that are not finite.
  """
  mu1, sigma1, mu2, sigma2 = (np.asarray(a, np.float64) for a in (mu1, sigma1, mu2, sigma2))
  dim = mu1.size
  for name, array, shape in (
    ('mu1', mu1, (dim,)),
    ('mu2', mu2, (dim,)),
    ('sigma1', sigma1, (dim, dim)),
    ('sigma2', sigma2, (dim, dim)),
  ):
    if array.shape != shape:
      raise ValueError(f'{name} has shape {array.shape}; with {dim} features it must be {shape}.')
    if not np.isfinite(array).all():
      raise ValueError(f'{name} has NaN or infinite values; recompute the statistics.')
  try:
    root = np.linalg.cholesky(sigma1)
  except np.linalg.LinAlgError:  # singular: Σ1^½ by eigenvectors, which takes longer
    lam, q = np.linalg.eigh(sigma1)
    root = q * np.sqrt(np.maximum(lam, 0))
  eigenvalues = np.linalg.eigvalsh(root.T @ sigma2 @ root)
  trace_root = np.sqrt(np.maximum(eigenvalues, 0)).sum()
  return float(np.sum((mu1 - mu2) ** 2) + np.trace(sigma1) + np.trace(sigma2) - 2 * trace_root)


def softmax(logits: np.ndarray) -> np.ndarray:
  """p(y|x) from logits (N, K), in float64: rows sum to 1 to float64 rounding."""
  logits = np.asarray(logits, np.float64)
  p = np.exp(logits - logits.max(axis=1, keepdims=True))
  return p / p.sum(axis=1, keepdims=True)


def weighted_moments(features: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean (D,) and covariance (D, D) of the law that images with weights (N,) are draws of.

  Unbiased for weights that do not depend on the images; equal ones give `Moments`' numbers.
  """
  f, shares = _features(features, 'fake'), weights / np.sum(weights)
  mean = shares @ f
  centred = f - mean
  return mean, (shares * centred.T) @ centred / (1 - np.sum(shares**2))


def effective(weights: np.ndarray) -> float:
  """(Σw)²/Σw²: of how many equal images a mean is as sure as of these (Kish 1965)."""
  return float(np.sum(weights) ** 2 / np.sum(weights**2))


def inception_score(
  probs: np.ndarray,
  splits: int = 10,
  shuffle_seed: int | None = 2020,
  weights: np.ndarray | None = None,
) -> tuple[float, float]:
  """exp E_x KL(p(y|x) ‖ p(y)): mean and (population) standard deviation over `splits` parts.

  probs: (N, K), rows p(y|x). Salimans et al. 2016, section 4. Each part has its own p(y), so order
  matters: samples sorted by class score far too low. `shuffle_seed=None` keeps the given order.
  weights: (N,), what each image counts for in its part; by default all are equal.
  """
  p = np.asarray(probs, np.float64)
  if p.ndim != 2 or not 1 <= splits <= len(p):
    raise ValueError(
      f'probs has shape {p.shape}; splits={splits} needs (N, K) with N ≥ splits ≥ 1.'
    )
  # A sum of NaN fails this too; float32 softmaxes pass.
  if not (p >= 0).all() or not np.allclose(p.sum(axis=1), 1, rtol=0, atol=1e-4):
    raise ValueError('probs must be ≥ 0 with rows that sum to 1; pass softmax(logits).')
  order = np.arange(len(p))
  if shuffle_seed is not None:
    order = np.random.RandomState(shuffle_seed).permutation(len(p))
  scores = []
  for i in range(splits):
    rows = order[i * len(p) // splits : (i + 1) * len(p) // splits]
    part, of_part = p[rows], None if weights is None else weights[rows]
    # KL averaged over x is H(p(y)) − E_x H(p(y|x)).
    mean, within = (np.average(x, axis=0, weights=of_part) for x in (part, entropy(part)))
    scores.append(np.exp(entropy(mean) - within))
  return float(np.mean(scores)), float(np.std(scores))


def kid(
  real: np.ndarray,
  fake: np.ndarray,
  subsets: int = 100,
  subset_size: int = 1000,
  seed: int = 2020,
) -> tuple[float, float]:
  """Kernel Inception Distance: mean and standard deviation of MMD² over random subsets.

  real: (N, D), fake: (M, D). Bińkowski et al. 2018, section 4: unlike FID, unbiased at any N (it
  may be negative). Each subset draws `subset_size` rows of either, without replacement.
  """
  real, fake = _features(real, 'real'), _features(fake, 'fake')
  most = min(len(real), len(fake))
  if not 2 <= subset_size <= most or subsets < 1:
    raise ValueError(
      f'kid subsets={subsets}, subset_size={subset_size} with {len(real)} real and {len(fake)} '
      f'fake images; use a subset_size from 2 to {most} and at least one subset.'
    )
  rng = np.random.RandomState(seed)
  drawn = [  # fake first, as torch-fidelity draws
    [rng.choice(n, subset_size, replace=False) for n in (len(fake), len(real))]
    for _ in range(subsets)
  ]
  if (len(fake) + len(real)) ** 2 > subsets * subset_size**2:
    values = [polynomial_mmd2(fake[x], real[y]) for x, y in drawn]
  else:  # the kernel of every pair once, and each subset as a vector of ones and zeros
    x, y = (np.zeros((subsets, n)) for n in (len(fake), len(real)))
    for k, (rows_x, rows_y) in enumerate(drawn):
      x[k, rows_x] = y[k, rows_y] = 1
    pairs = subset_size * (subset_size - 1)
    within = [
      (((v @ k) * v).sum(1) - v @ np.diag(k)) / pairs
      for v, k in ((x, _cubic_kernel(fake, fake)), (y, _cubic_kernel(real, real)))
    ]
    across = ((x @ _cubic_kernel(fake, real)) * y).sum(1) / subset_size**2
    values = within[0] + within[1] - 2 * across
  return float(np.mean(values)), float(np.std(values))


def polynomial_mmd2(x: np.ndarray, y: np.ndarray) -> float:
  """Unbiased MMD², k(a, b) = (a·b/D + 1)³; x: (M, D), y: (N, D). Bińkowski et al. 2018, eq. 4."""
  m, n = len(x), len(y)
  k_xx, k_yy, k_xy = _cubic_kernel(x, x), _cubic_kernel(y, y), _cubic_kernel(x, y)
  within_x = (k_xx.sum() - np.trace(k_xx)) / (m * (m - 1))
  within_y = (k_yy.sum() - np.trace(k_yy)) / (n * (n - 1))
  return float(within_x + within_y - 2 * k_xy.mean())


def _cubic_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  k = a @ b.T
  k /= a.shape[1]
  k += 1
  return k * k * k  # `** 3` takes three times as long


def precision_recall(
  real: np.ndarray, fake: np.ndarray, k: int = 3, real_radii2: np.ndarray | None = None
) -> tuple[float, float]:
  """Improved precision and recall: the part of fake in real's manifold, and of real in fake's.

  real: (N, D), fake: (M, D). Kynkäänniemi et al. 2019, equation 2: a point is in a set's manifold
  if it is as near to one of the set's points as that point's k-th nearest neighbour is.
  real_radii2: `neighbour_radii2(real, k)`, if that is known.
  """
  real, fake = _features(real, 'real'), _features(fake, 'fake')
  if real_radii2 is None:
    real_radii2 = neighbour_radii2(real, k, 'real')
  fake_radii2 = neighbour_radii2(fake, k, 'fake')
  in_real = np.zeros(len(fake), bool)
  in_fake = np.zeros(len(real), bool)
  for rows, d2 in squared_distances(real, fake):
    in_real |= (d2 <= real_radii2[rows, None]).any(axis=0)
    in_fake[rows] = (d2 <= fake_radii2).any(axis=1)
  return float(in_real.mean()), float(in_fake.mean())


def density_coverage(
  real: np.ndarray, fake: np.ndarray, k: int = 5, real_radii2: np.ndarray | None = None
) -> tuple[float, float]:
  """Density (may exceed 1) and coverage: precision and recall made robust to outliers.

  real: (N, D), fake: (M, D). Naeem et al. 2020, equations 5 and 6. Density: the number of real
  points' k-neighbourhoods that a fake point lies in, over k, on average. Coverage: the part of the
  real points whose k-neighbourhood holds a fake point. real_radii2: as for `precision_recall`.
  """
  real, fake = _features(real, 'real'), _features(fake, 'fake')
  radii2 = neighbour_radii2(real, k, 'real') if real_radii2 is None else real_radii2
  inside = covered = 0
  for rows, d2 in squared_distances(real, fake):
    hits = d2 < radii2[rows, None]
    inside += np.count_nonzero(hits)
    covered += np.count_nonzero(hits.any(axis=1))
  return inside / (k * len(fake)), covered / len(real)


def entropy(p: np.ndarray) -> np.ndarray:
  """−Σ p log p over the last axis, with 0 log 0 = 0: (…, K) → (…)."""
  return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)


def _features(array: np.ndarray, name: str) -> np.ndarray:
  array = np.asarray(array, np.float64)
  if array.ndim != 2:
    raise ValueError(f'{name} has shape {array.shape}; features must be (N, D).')
  if not np.isfinite(array).all():
    raise ValueError(f'{name} has NaN or infinite features; look at the images or the weights.')
  return array


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
  """Yields slices of x's rows with |x_i − y_j|², (rows, len(y))."""
  if x.shape[1] != y.shape[1]:
    raise ValueError(
      f'{x.shape[1]} features against {y.shape[1]}; use one extractor for both sets.'
    )
  x2, y2 = np.sum(x * x, axis=1), np.sum(y * y, axis=1)
  for start in range(0, len(x), _BLOCK_ROWS):
    rows = slice(start, start + _BLOCK_ROWS)
    yield rows, np.maximum(x2[rows, None] + y2 - 2 * (x[rows] @ y.T), 0)


def neighbour_radii2(x: np.ndarray, k: int, name: str) -> np.ndarray:
  """Squared distance of every row of x (N, D) to its k-th nearest other row, (N,).

  name: what errors call the rows. ValueError where there are no k others.
  """
  if not 1 <= k < len(x):
    raise ValueError(f'k={k} neighbours among {len(x)} {name} images; use 1 ≤ k < {len(x)}.')
  radii2 = np.empty(len(x))
  for rows, d2 in squared_distances(x, x):
    np.fill_diagonal(d2[:, rows], np.inf)  # a point isn't its own neighbour
    radii2[rows] = np.partition(d2, k - 1, axis=1)[:, k - 1]
  return radii2
