"""What ADM's evaluator computes in a way of its own: `evaluate --as_adm`.

Dhariwal & Nichol (2021) publish their numbers by guided-diffusion's evaluations/evaluator.py, on
samples that were truncated to uint8, not rounded. Of what it prints three depend on its ways:

- IS is the mean over the samples in their order, 5 000 at a time (ours: ten shuffled parts).
- Precision and recall compare squared distances in float16 (ours: float64).
- FID and sFID have truncated samples against the reference as it is.

What that moves, measured without Inception's weights: of 2 000 samples of the package's digits,
w = 0, on the digits' features, FD-digits from 9.25 to 9.39 (truncation alone), IS from 9.68 to 9.91
(one part of 2 000 for ten of 200), precision from .9145 to .9170, recall from .7791 to .7830. On
4 000 random features of 2 048 dimensions float16 alone moved precision from .6660 to .6695 and
recall from .6495 to .6513.
"""

import numpy as np

from cfg_jax.evaluate import metrics
from cfg_jax.evaluate.features import Features
from cfg_jax.evaluate.references import Reference

SPLIT = 5000
SETTINGS = {  # of a line's metric_settings, in place of ours
  'is_splits': f'of {SPLIT}, in order',
  'is_shuffle_seed': None,
  'precision_recall_distances': 'float16',
}
_ROWS = 1024


def values(found: Features, reference: Reference) -> dict[str, float]:
  """The metrics that differ from ours, by name."""
  out = dict(zip(('IS', 'IS_std'), inception_score(found.probs)))
  if reference.features is not None:
    out |= zip(('precision', 'recall'), precision_recall(reference.features, found.kept))
  return out


def inception_score(probs: np.ndarray) -> tuple[float, float]:
  """Mean and standard deviation over parts of 5 000 in order; the last part may be smaller.

  probs: (N, K), rows p(y|x).
  """
  parts = [probs[i : i + SPLIT] for i in range(0, len(probs), SPLIT)]
  scores = [metrics.inception_score(part, 1, None)[0] for part in parts]
  return float(np.mean(scores)), float(np.std(scores))


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
  """`metrics.precision_recall` with squared distances in float16, as `squared_distances` says.

  real: (N, D), fake: (M, D), finite. Raises ValueError where one has k rows or fewer.
  """
  for name, x in (('real', real), ('fake', fake)):
    if len(x) <= k:
      raise ValueError(f'k={k} neighbours among {len(x)} {name} images; use 1 ≤ k < {len(x)}.')
  real_radii2, fake_radii2 = _radii2(real, k), _radii2(fake, k)
  in_real, in_fake = np.zeros(len(fake), bool), np.zeros(len(real), bool)
  for i in range(0, len(real), _ROWS):
    d2 = squared_distances(real[i : i + _ROWS], fake)
    in_real |= (d2 <= real_radii2[i : i + _ROWS, None]).any(0)
    in_fake[i : i + _ROWS] = (d2 <= fake_radii2).any(1)
  return float(in_real.mean()), float(in_fake.mean())


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """|x_i − y_j|² = |x|² − 2 x·y + |y|² of x (M, D), y (N, D), every term rounded to float16.

  Sums are taken in float32 and rounded, as a GPU takes them. Where one is beyond float16 (65 504),
  all are float32, which is the evaluator's way too. Returns float32 (M, N), ≥ 0.
  """
  halves = [np.float32(np.float16(a)) for a in (x, y)]
  with np.errstate(over='ignore', invalid='ignore'):
    d2 = _distances(*halves, np.float16)
  if not np.isfinite(d2).all():
    d2 = _distances(np.float32(x), np.float32(y), np.float32)
  return np.float32(d2)


def _distances(x, y, dtype):
  x2, y2 = (dtype(np.square(a).sum(1)) for a in (x, y))
  product = dtype(x @ y.T)
  return np.maximum(x2[:, None] - dtype(2) * product + y2, dtype(0))


def _radii2(x, k):
  """Of each row, the squared distance to its k-th nearest other: itself is the nearest, at 0."""
  parts = [squared_distances(x[i : i + _ROWS], x) for i in range(0, len(x), _ROWS)]
  return np.concatenate([np.partition(part, k, axis=1)[:, k] for part in parts])
