"""What every feature extractor is, and how images stream through one into what metrics need."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.core.progress import Progress
from cfg_jax.evaluate import metrics
from cfg_jax.evaluate.images import Images
from cfg_jax.evaluate.statistics import Moments

BATCH = 512  # images read at a time; the extractor cuts them as its devices like
MIN_IMAGES = 10  # one for each split of IS, and more than any k
SPATIAL_KEPT = 10_000  # images whose spatial features are held, for the error of sFD
SAVE_SECONDS = 60.0  # how often a stream leaves on disk what it has


class Extractor(Protocol):
  """A network that sees uint8 images, and what is to be known of it."""

  name: str
  sha256: str  # of its weights
  dim: int  # D, the number of its features
  resize: str  # how it enlarges images; 'none' if it takes them as they are
  is_public: bool  # whether these are the weights that FID is defined by
  labels_of: str | None  # the data set whose labels its classes are

  def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Features of uint8 images (N, H, W, C), any N.

    'features': (N, D), for distances; 'logits': (N, K), for the Inception Score; 'spatial', where
    the network has them: (N, D'), for sFID.
    """


@dataclasses.dataclass
class Features:
  """What is held of n images: moments for Fréchet distances, and rows of logits and features.

  logits: (M, K), kept: (M, D), of all images or of those that were to be kept. `fingerprint` is a
  sha256 of the pixels of all n images in order, whatever the batches. spatial_kept: (M', D') of the
  first SPATIAL_KEPT images, where the network has such features.
  """

  moments: Moments
  spatial: Moments | None
  logits: np.ndarray
  kept: np.ndarray
  fingerprint: str
  spatial_kept: np.ndarray | None = None

  @property
  def probs(self) -> np.ndarray:
    """p(y|x), float64 (M, K)."""
    return metrics.softmax(self.logits)


def settings(extractor: Extractor) -> dict[str, str]:
  """What must be equal where two sets of features are compared."""
  return {
    'extractor': extractor.name,
    'extractor_sha256': extractor.sha256,
    'resize': extractor.resize,
  }


def check_enough(n: int, what: str) -> None:
  """Raises UserError, which begins with `what`, unless n images are enough for every metric."""
  if n < MIN_IMAGES:
    raise UserError(f'{what}: the metrics need at least {MIN_IMAGES}.')


def of_images(
  images: Images,
  extractor: Extractor,
  n: int | None = None,
  *,
  keep: np.ndarray | None = None,
  resume: Path | None = None,
) -> Features:
  """Features of the first n images, by default all; shows its progress. See `stream`."""
  n = images.n if n is None else n
  progress = Progress(f'features {extractor.name}', n, unit='images')
  batches = images.batches(BATCH, n)
  found = stream(batches, extractor, keep=keep, progress=progress, resume=resume)
  progress.done()
  return found


def stream(
  batches: Iterable[np.ndarray],
  extractor: Extractor,
  *,
  keep: np.ndarray | None = None,
  progress: Progress | None = None,
  resume: Path | None = None,
) -> Features:
  """Runs uint8 batches (n, H, W, C) through the extractor; holds one batch of images at a time.

  keep: which images' features and logits to hold as they are (KID, precision/recall, IS), as a mask
  over all N images; by default all. progress: counts images as they are done. resume: a file
  that holds what is done so far, written every minute and removed at the end; a restart over the
  same images goes on from it.
  Raises UserError on features that are not finite, where there is no image at all, and where
  `resume` is of other images or settings.
  """
  earlier = _load(resume, settings(extractor)) if resume and resume.exists() else None
  if earlier:
    moments, spatial, known = earlier.moments, earlier.spatial, earlier.moments.n
    logits, kept = [earlier.logits], [earlier.kept]
    spatial_kept = [] if spatial is None else [earlier.spatial_kept]
  else:
    moments, spatial, known, logits, kept, spatial_kept = None, None, 0, [], [], []
  fingerprint, done, saved = '', 0, time.monotonic()
  if progress and known:
    progress.update(known)

  def so_far() -> Features:
    first = np.concatenate(spatial_kept) if spatial_kept else None
    rows = np.concatenate(logits), np.concatenate(kept)
    return Features(moments, spatial, *rows, fingerprint, first)

  for images in batches:
    for image in images:
      fingerprint = hashlib.sha256(fingerprint.encode() + image.tobytes()).hexdigest()
      done += 1
      if done == known and fingerprint != earlier.fingerprint:
        raise UserError(f'{resume} is of other images; remove it to start over.')
    images = images[max(0, len(images) - max(0, done - known)) :]  # those not known yet
    if not len(images):
      continue
    out = extractor(images)
    f = out['features']
    moments = (moments or Moments.zeros(f.shape[1])).update(f)
    if 'spatial' in out:
      spatial = (spatial or Moments.zeros(out['spatial'].shape[1])).update(out['spatial'])
      spatial_kept.append(out['spatial'][: max(0, SPATIAL_KEPT - sum(map(len, spatial_kept)))])
    rows = slice(None) if keep is None else keep[done - len(f) : done]
    logits.append(out['logits'][rows])
    kept.append(f[rows])
    if progress:
      progress.update(len(images))
    if resume and time.monotonic() - saved > SAVE_SECONDS:
      _save(resume, so_far(), settings(extractor))
      saved = time.monotonic()
  if done < known:
    raise UserError(f'{resume} is of other images; remove it to start over.')
  if not done:
    raise UserError('no images to evaluate.')
  if resume:
    resume.unlink(missing_ok=True)
  return so_far()


def _save(path: Path, found: Features, made_with: dict) -> None:
  """Writes unfinished features."""
  arrays = {f'moments_{k}': v for k, v in vars(found.moments).items()}
  if found.spatial is not None:
    arrays |= {f'spatial_{k}': v for k, v in vars(found.spatial).items()}
    arrays['spatial_kept'] = found.spatial_kept
  with files.atomic(path) as file:
    np.savez(
      file,
      logits=found.logits,
      kept=found.kept,
      fingerprint=found.fingerprint,
      settings=json.dumps(made_with),
      **arrays,
    )


def _load(path: Path, made_with: dict) -> Features:
  """What `_save` wrote; UserError where the file is damaged or of other settings."""
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = dict(file)
    moments = [
      Moments(int(arrays[f'{k}_n']), arrays[f'{k}_sum'], arrays[f'{k}_outer'])
      for k in ('moments', 'spatial')
      if f'{k}_n' in arrays
    ]
    spatial = moments[1] if len(moments) > 1 else None
    fingerprint, settings_then = str(arrays['fingerprint']), json.loads(str(arrays['settings']))
    first = arrays['spatial_kept'] if spatial else None
    found = Features(moments[0], spatial, arrays['logits'], arrays['kept'], fingerprint, first)
  except (*files.NPZ_DAMAGE, TypeError) as error:
    raise UserError(f'{path} is damaged ({error}); remove it to start over.') from None
  if settings_then != made_with:
    raise UserError(f'{path} is of {settings_then}, not {made_with}; remove it to start over.')
  return found
