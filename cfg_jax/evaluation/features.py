"""What every feature extractor is, and how images stream through one into what metrics need."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from tqdm import tqdm

from cfg_jax.evaluation import metrics
from cfg_jax.evaluation.statistics import Moments


class Extractor(Protocol):
  """A network that sees images: `name` and `sha256` (of its weights) say which."""

  name: str
  sha256: str

  def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Features of uint8 images (N, H, W, C), any N.

    'features': (N, D), for distances; 'logits' or 'probs': (N, K), for the Inception Score;
    'spatial', where the network has them: (N, D'), for sFID.
    """


@dataclasses.dataclass
class Features:
  """What is kept of n images: moments for Fréchet distances, p(y|x), some rows of features.

  `fingerprint` is the sha256 of the pixels in order, whatever the batches.
  """

  moments: Moments
  spatial: Moments | None
  probs: np.ndarray | None
  kept: np.ndarray
  fingerprint: str


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
  images; by default all. total: N, for the progress bar, which is shown on a terminal only.
  Raises ValueError on features that are not finite, and where there is no image at all.
  """
  moments = spatial = None
  probs, kept, done = [], [], 0
  pixels = hashlib.sha256()
  with tqdm(total=total, unit='image', desc=extractor.name, disable=None) as progress:
    for images in batches:
      out = extractor(images)
      f = out['features']
      moments = moments or Moments.zeros(f.shape[1])
      moments.update(f)
      if 'spatial' in out:
        spatial = spatial or Moments.zeros(out['spatial'].shape[1])
        spatial.update(out['spatial'])
      if 'probs' in out:
        probs.append(np.asarray(out['probs'], np.float32))
      elif 'logits' in out:
        probs.append(metrics.softmax(out['logits']).astype(np.float32))
      kept.append(np.asarray(f if keep is None else f[keep[done : done + len(f)]], np.float32))
      pixels.update(np.ascontiguousarray(images))
      done += len(images)
      progress.update(len(images))
  if moments is None:
    raise ValueError('no images to evaluate.')
  return Features(
    moments,
    spatial,
    np.concatenate(probs) if probs else None,
    np.concatenate(kept),
    pixels.hexdigest(),
  )
