"""What every feature extractor is, and how images stream through one into what metrics need."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from cfg_jax.evaluation import metrics
from cfg_jax.evaluation.statistics import Moments
from cfg_jax.progress import Progress


class Extractor(Protocol):
  """A network that sees images: `name` and `sha256` (of its weights) say which."""

  name: str
  sha256: str

  def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Features of uint8 images (N, H, W, C), any N.

    'features': (N, D), for distances; 'logits': (N, K), for the Inception Score; 'spatial', where
    the network has them: (N, D'), for sFID.
    """


@dataclasses.dataclass
class Features:
  """What is held of n images: moments for Fréchet distances, logits (n, K), rows of features.

  `fingerprint` is the sha256 of the pixels in order, whatever the batches.
  """

  moments: Moments
  spatial: Moments | None
  logits: np.ndarray
  kept: np.ndarray
  fingerprint: str

  @property
  def probs(self) -> np.ndarray:
    """p(y|x), float64 (n, K)."""
    return metrics.softmax(self.logits)


def settings(extractor: Extractor) -> dict[str, str]:
  """What must be equal where two sets of features are compared."""
  return {
    'extractor': extractor.name,
    'extractor_sha256': extractor.sha256,
    'resize': getattr(extractor, 'resize', 'none'),
  }


def stream(
  batches: Iterable[np.ndarray],
  extractor: Extractor,
  *,
  keep: np.ndarray | None = None,
  total: int | None = None,
) -> Features:
  """Runs uint8 batches (n, H, W, C) through the extractor; holds one batch of images at a time.

  keep: which images' features to hold as they are (KID, precision/recall), as a mask over all N
  images; by default all. total: N, to show progress.
  Raises ValueError on features that are not finite, and where there is no image at all.
  """
  moments = spatial = None
  logits, kept, done = [], [], 0
  pixels = hashlib.sha256()
  progress = Progress(f'features {extractor.name}', total, unit='images') if total else None
  for images in batches:
    out = extractor(images)
    f = out['features']
    moments = moments or Moments.zeros(f.shape[1])
    moments.update(f)
    if 'spatial' in out:
      spatial = spatial or Moments.zeros(out['spatial'].shape[1])
      spatial.update(out['spatial'])
    logits.append(out['logits'])
    kept.append(f if keep is None else f[keep[done : done + len(f)]])
    pixels.update(np.ascontiguousarray(images))
    done += len(images)
    if progress:
      progress.update(len(images))
  if moments is None:
    raise ValueError('no images to evaluate.')
  if progress:
    progress.done()
  return Features(
    moments, spatial, np.concatenate(logits), np.concatenate(kept), pixels.hexdigest()
  )
