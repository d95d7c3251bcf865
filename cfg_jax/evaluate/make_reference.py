"""References of our own: of a data set, made on first use, or of any images."""

import dataclasses
import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.evaluate import features, references
from cfg_jax.evaluate.features import BATCH, Extractor, Features
from cfg_jax.evaluate.images import Images, open_images
from cfg_jax.evaluate.references import Reference

KEPT = 10_000  # images of a reference whose features are kept, as many as ADM's files have
KEPT_SEED = 0  # which ones


def make(
  what: str | Path,
  out: str | Path,
  extractor: Extractor,
  *,
  data_dir: str | Path = 'data',
  split: str = 'train',
  quantisation: str | None = None,
) -> dict:
  """Writes statistics of a data set, by its name, or of images at a path; returns what they are of.

  quantisation: how these images became uint8 ('round' or 'truncate'), if that is known; data sets
  prepared here were rounded. If it is interrupted, it goes on from a file beside `out`.
  Raises UserError where `out` exists already or the data cannot be read.
  """
  out = Path(out)
  if out.suffix != '.npz':
    raise UserError(f'{out} must end in .npz.')
  if out.exists():
    raise UserError(f'{out} exists; choose another name, or remove it first.')
  if what not in registry.DATASETS and Path(what).exists():
    images, dataset = open_images(what), {'dataset': str(what)}
  else:
    images, dataset = dataset_images(str(what), files.expand(data_dir), split)
  found = _features(images, extractor, out.with_name(f'{out.name}.unfinished'))
  settings = features.settings(extractor) | dataset | {'pixels_sha256': found.fingerprint}
  if quantisation:
    settings['quantisation'] = quantisation
  references.write(out, found, settings)
  return {'reference': str(out), 'reference_n': images.n, **settings}


def of_dataset(name: str, data_dir: Path, split: str, extractor: Extractor) -> Reference:
  """The reference of a data set, made on first use and kept in data_dir/references.

  Its file's name has all that it depends on, and its sha256 is the pixels'.
  Raises UserError where the data cannot be read or the reference not be written.
  """
  _, dataset = dataset_images(name, data_dir, split)
  settings = features.settings(extractor)
  parts = (name, split, dataset['fingerprint'], *(value[:20] for value in settings.values()))
  path = data_dir / 'references' / f'{"-".join(parts)}.npz'
  try:
    if not path.exists():
      make(name, path, extractor, data_dir=data_dir, split=split)
  except OSError as error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
      raise
    raise UserError(
      f'{path} cannot be made ({error}): use cfg_jax.evaluate reference {name} --out=FILE.npz, '
      'and give that file as --reference.'
    ) from None
  reference = references.read(path)
  return dataclasses.replace(reference, sha256=reference.settings['pixels_sha256'])


def read_or_make(path: str | Path, extractor: Extractor, settings: dict) -> Reference:
  """The statistics in the file at `path`; where it has none, those of the images there.

  settings: the samples' (`features.settings`, and their quantisation if known). Raises UserError
  where a file of statistics has others, or another number of features.
  """
  if not references.has_statistics(path):
    return references.of_features(path, _features(open_images(path), extractor))
  reference = references.read(path)
  references.check(reference, settings, extractor.dim)
  if reference.features is None and reference.has_images:
    # ADM's way: FID from the stored statistics, precision and recall from the 10 000 images.
    found = _features(open_images(path), extractor)
    reference = dataclasses.replace(reference, features=found.kept)
  return reference


def dataset_images(name: str, data_dir: Path, split: str) -> tuple[Images, dict]:
  """A data set's images, and what a reference says of them."""
  dataset = registry.get(name, data_dir)
  source = dataset.open(data_dir, split)

  def pieces() -> Iterator[np.ndarray]:
    for start in range(0, len(source), BATCH):
      rows = list(range(start, min(start + BATCH, len(source))))
      yield np.stack([example['image'] for example in source.__getitems__(rows)])

  images = Images(data_dir / name, len(source), dataset.image_shape, pieces)
  return images, {
    'dataset': f'{name}-{split}',
    'fingerprint': registry.fingerprint(source),
    'quantisation': 'round',
  }


def _features(images: Images, extractor: Extractor, resume: Path | None = None) -> Features:
  """Features of all images, of which KEPT rows, drawn from all, are kept."""
  features.check_enough(images.n, f'the reference {images.path} has {images.n} images')
  keep = np.zeros(images.n, bool)
  chosen = np.random.RandomState(KEPT_SEED).permutation(images.n)[:KEPT]
  keep[chosen] = True
  return features.of_images(images, extractor, keep=keep, resume=resume)
