"""How far off each metric is: the standard error that n images leave, had other noise been drawn.

To first order a metric is its value plus the mean over images of one number each, the image's
influence (the infinitesimal jackknife, Efron 1982): the standard deviation of the influences over
√n is the error. It costs about as much as the metric itself, also with Inception's 2 048
features, where recomputing a Fréchet distance on resampled images would take minutes. The
Inception Score, which is cheap, is recomputed on resampled images. Like any bootstrap this tells of
the spread: a bias that depends on n, as the Fréchet distance's, stays. Where a metric is near its
least value, and of few images, the error comes out too large, by up to √2; those on recall and
coverage do so more often.

Where labels are drawn in turn, every redrawn set has as many of each class: images are then
compared within classes. The reference is taken as it is.
"""

import numpy as np

from cfg_jax.evaluate import metrics

REPLICATES = 100  # deviations of a metric: the error of a difference is known to 7 %
ANCHORS = 2000  # images of either kind that an image is compared with for KID's influence
_ROWS = 1024
_COUNTS = 2**23  # how often images are in resamples: so many numbers are held at once


def standard_error(
  influence: np.ndarray,
  n: float,
  labels: np.ndarray | None = None,
  weights: np.ndarray | None = None,
) -> float:
  """The error of a metric of n images from the influences (M,) of some of them.

  labels: (M,), where the number of images of each class is not left to chance. weights: (M,), what
  each image counts for, as in self-normalised importance sampling; n is then how many are
  `metrics.effective`.
  """
  centred = _within(influence, labels, weights)
  squared = None if weights is None else weights**2
  return float(np.sqrt(np.average(centred**2, weights=squared) / n))


def resamples(n: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
  """Which image stands at each place of n in REPLICATES bootstrap samples: (n, REPLICATES) ints.

  labels: (n,), of which every set has as many of each: an image of the same class stands there.
  They are the same wherever n, the seed of the samples and the labels are: differences of metrics
  from one noise have the differences of their deviations, and so errors of their own.
  """
  random = np.random.RandomState(seed)
  out = np.empty((n, REPLICATES), np.int32)
  groups, counts = _groups(n, labels)
  for group, count in enumerate(counts):
    rows = np.flatnonzero(groups == group)
    out[rows] = rows[random.randint(0, count, (count, REPLICATES))]
  return out


def deviations(
  influence: np.ndarray, drawn: np.ndarray, labels: np.ndarray | None = None
) -> np.ndarray:
  """What `resamples` (N, REPLICATES) move a metric by, to first order: (REPLICATES,), mean 0."""
  return np.mean(_within(influence, labels)[drawn], axis=0)


def _within(
  influence: np.ndarray, labels: np.ndarray | None, weights: np.ndarray | None = None
) -> np.ndarray:
  """Influences less their class's mean, scaled so that their mean square is the variance."""
  groups, counts = _groups(len(influence), labels)
  w = np.ones(len(influence)) if weights is None else weights
  means = np.bincount(groups, w * influence) / np.bincount(groups, w)
  return (influence - means[groups]) * np.sqrt(counts / np.maximum(counts - 1, 1))[groups]


def _groups(n: int, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
  """The group of each image, (n,), and their sizes; one group if a class has only one image."""
  groups = np.zeros(n, int) if labels is None else np.asarray(labels)
  _, groups, counts = np.unique(groups, return_inverse=True, return_counts=True)
  return (groups, counts) if counts.min() > 1 else (np.zeros(n, int), np.array([n]))


def frechet(
  rows: np.ndarray, mean: np.ndarray, cov: np.ndarray, to_mean: np.ndarray, to_cov: np.ndarray
) -> np.ndarray:
  """Influences on `metrics.frechet_distance` of images with features `rows` (M, D): (M,).

  mean, cov: of all images, of which rows may be a part. 2 δ·(μ − μ') + δᵀ(1 − A)δ for δ = f − μ,
  where A is the map that carries N(μ, Σ) to N(μ', Σ'): with Σ = LLᵀ it is L⁻ᵀ (LᵀΣ'L)^½ L⁻¹.
  """
  try:
    root = np.linalg.cholesky(cov)
    back = np.linalg.inv(root)
  except np.linalg.LinAlgError:  # no image lies outside the span of Σ
    lam, q = np.linalg.eigh(cov)
    q, lam = q[:, lam > lam[-1] * 1e-10], lam[lam > lam[-1] * 1e-10]
    root, back = q * np.sqrt(lam), (q / np.sqrt(lam)).T
  lam, q = np.linalg.eigh(root.T @ to_cov @ root)
  half = (q * np.sqrt(np.sqrt(np.maximum(lam, 0)))).T @ back  # A is half.T @ half
  out = np.empty(len(rows))
  for start in range(0, len(rows), _ROWS):
    delta = rows[start : start + _ROWS].astype(np.float64) - mean
    moved = delta @ half.T
    quadratic = np.sum(delta * delta, axis=1) - np.sum(moved * moved, axis=1)
    out[start : start + _ROWS] = 2 * delta @ (mean - to_mean) + quadratic
  return out


def whole_inception_score(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Influences on the Inception Score of all images as one part, (N,): the score times their KL.

  probs: p(y|x), (N, K); weights: (N,). For parts of hundreds of images see `inception_score`.
  """
  marginal = np.average(probs, axis=0, weights=weights)
  kl = -metrics.entropy(probs) - probs @ np.log(np.maximum(marginal, np.finfo(float).tiny))
  return np.exp(np.average(kl, weights=weights)) * kl


def inception_score(
  probs: np.ndarray, drawn: np.ndarray, splits: int, shuffle_seed: int | None
) -> np.ndarray:
  """What `resamples` (N, REPLICATES) move the Inception Score by: (REPLICATES,), mean 0.

  probs: p(y|x), (N, K). It is computed again for each: in parts of some hundred images p(y) is so
  uncertain that a first order says too little. Only their spread counts, not their mean.
  """
  n = len(probs)
  order, part = np.arange(n), np.empty(n, int)
  if shuffle_seed is not None:
    order = np.random.RandomState(shuffle_seed).permutation(n)
  for k in range(splits):
    part[order[k * n // splits : (k + 1) * n // splits]] = k
  sizes, entropy = np.bincount(part), metrics.entropy(probs)
  scores = np.empty(drawn.shape[1])
  at_once = max(1, _COUNTS // (splits * n))
  for start in range(0, len(scores), at_once):
    rows = drawn[:, start : start + at_once].T
    counts = np.zeros((len(rows), splits, n))
    for count, row in zip(counts, rows):
      np.add.at(count, (part, row), 1)
    counts /= sizes[:, None]
    marginal = (counts.reshape(-1, n) @ probs).reshape(len(rows), splits, -1)
    gains = metrics.entropy(marginal) - counts @ entropy
    scores[start : start + at_once] = np.exp(gains).mean(axis=1)
  return scores - scores.mean()


def kid(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
  """Influences on MMD² of the fake images, (N,): 2 (E k(f, f') − E k(f, r)).

  The expectations are over all others, or over ANCHORS of them.
  """
  real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
  among = np.unique(np.linspace(0, len(fake) - 1, min(ANCHORS, len(fake))).astype(int))
  anchors, out = fake[among], np.empty(len(fake))
  reals = real[np.unique(np.linspace(0, len(real) - 1, min(ANCHORS, len(real))).astype(int))]
  is_anchor = np.isin(np.arange(len(fake)), among)
  for start in range(0, len(fake), _ROWS):
    rows = slice(start, start + _ROWS)
    x = fake[rows]
    own = is_anchor[rows] * (np.sum(x * x, axis=1) / x.shape[1] + 1) ** 3
    alike = (_cubic(x, anchors).sum(axis=1) - own) / (len(anchors) - is_anchor[rows])
    out[rows] = 2 * (alike - _cubic(x, reals).mean(axis=1))
  return out


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  k = x @ y.T / x.shape[1] + 1
  return k * k * k


def manifolds(
  real: np.ndarray,
  fake: np.ndarray,
  k: int,
  wide: int,
  tight2: np.ndarray,
  wide2: np.ndarray,
) -> dict[str, np.ndarray]:
  """Influences of the fake images on precision, recall (k), density and coverage (wide): (N,) each.

  tight2, wide2: `metrics.neighbour_radii2` of the real images for k and wide, (M,).
  Those on recall and coverage come of leaving each image out (the jackknife): what it alone covers
  is lost, and the neighbourhoods that it was one of the k nearest in grow.
  """
  real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
  n, near, radii2, grown2 = len(fake), *_neighbours(fake, k)
  precise, dense, recalled, covered = np.zeros(n, bool), np.zeros(n), np.zeros(n), np.zeros(n)
  for rows, d2 in metrics.squared_distances(real, fake):
    precise |= (d2 <= tight2[rows, None]).any(axis=0)
    inside = d2 < wide2[rows, None]
    dense += inside.sum(axis=0)
    covered += inside[inside.sum(axis=1) == 1].sum(axis=0)
    held, holds = d2 <= radii2, d2 <= grown2
    for j in np.flatnonzero(held.sum(axis=1) <= 1):
      growing = np.unique(near[np.flatnonzero(holds[j] & ~held[j])])
      if alone := np.flatnonzero(held[j]).tolist():
        recalled[alone[0]] += alone[0] not in growing
      else:
        recalled[growing] -= 1
  left_out = (n - 1) / len(real)
  return {
    'precision': precise.astype(float),
    'recall': recalled * left_out,
    'density': dense / wide,
    'coverage': covered * left_out,
  }


def _neighbours(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The k nearest others of each row (N, k); squared distances to the k-th and the next, (N,)."""
  near, radii2, grown2 = np.empty((len(x), k), int), np.empty(len(x)), np.empty(len(x))
  for rows, d2 in metrics.squared_distances(x, x):
    np.fill_diagonal(d2[:, rows], np.inf)
    order = np.argpartition(d2, (k - 1, k), axis=1)[:, : k + 1]
    near[rows] = order[:, :k]
    radii2[rows], grown2[rows] = np.take_along_axis(d2, order[:, k - 1 :], axis=1).T
  return near, radii2, grown2


def rounded(values: np.ndarray) -> list[float]:
  """Four digits of each, as JSON has them."""
  return [float(f'{x:.4g}') for x in values]
