"""Samples from anywhere against any reference, and references of our own: what the CLI calls."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cfg_jax.core.errors import UserError
from cfg_jax.core.progress import Progress
from cfg_jax.data import registry as datasets
from cfg_jax.evaluate import features, metrics, references
from cfg_jax.evaluate import images as samples
from cfg_jax.evaluate.features import Extractor, Features
from cfg_jax.evaluate.references import Reference

BATCH = 512  # images read at a time; the extractor cuts them as its devices like
KEPT = 10_000  # images of a reference whose features are kept, as many as ADM's files have
KEPT_SEED = 0  # which ones
MIN_SAMPLES = 10  # one for each split of IS, and more than any k
METRIC_SETTINGS = {
  'is_splits': 10,
  'is_shuffle_seed': 2020,
  'kid_subsets': 100,
  'kid_subset_size': 1000,
  'kid_seed': 2020,
  'precision_recall_k': 3,
  'density_coverage_k': 5,
}


def evaluate(
  samples_path: str | Path,
  reference_path: str | Path,
  extractor: Extractor,
  *,
  num_samples: int | None = None,
  quantisation: str | None = None,
  resume: Path | None = None,
) -> dict:
  """One line for evals.jsonl: all metrics of the samples, with their provenance.

  samples_path: what `samples.open_images` reads. reference_path: what `references.read` reads, or
  images, from which statistics are computed here. num_samples: the first so many, by default all.
  quantisation: how the samples became uint8, if known ('round' or 'truncate'). resume: a file from
  which an interrupted evaluation goes on, as in `features.stream`.
  Raises ValueError, one line; where the reference cannot fit, before any sample is looked at.
  """
  images = samples.open_images(samples_path)
  n = images.n if num_samples is None else num_samples
  check_enough(n)
  if n > images.n:
    raise UserError(f'num_samples={n} of the {images.n} images in {samples_path}.')
  settings = features.settings(extractor)
  if quantisation:
    settings['quantisation'] = quantisation
  extractor(next(images.batches(1)))  # refuses images of a kind that it does not take
  reference = load_reference(reference_path, extractor, settings)
  fake = _features(images, n, extractor, resume=resume)
  return {
    'samples': str(samples_path),
    'samples_sha256': fake.fingerprint,
    'n': n,
    **settings,
    **provenance(reference),
    'metric_settings': METRIC_SETTINGS,
    'distance': distance_name(n, extractor),
    'metrics': compare(fake, reference, extractor),
  }


def check_enough(n: int) -> None:
  """ValueError unless n samples are enough for every metric."""
  if n < MIN_SAMPLES:
    raise UserError(f'num_samples={n}: the metrics need at least {MIN_SAMPLES}.')


def make_reference(
  what: str | Path,
  out: str | Path,
  extractor: Extractor,
  *,
  data_dir: str | Path = 'data',
  split: str = 'train',
  quantisation: str | None = None,
) -> dict:
  """Statistics of a data set, by its name here, or of images at a path; returns what was written.

  quantisation: how these images became uint8 ('round' or 'truncate'), if that is known; data sets
  prepared here were rounded. Interrupted, it goes on from a file beside `out`.
  Raises ValueError, one line, where `out` exists already or the data cannot be read.
  """
  out = Path(out)
  if out.suffix != '.npz':
    raise UserError(f'{out} must end in .npz.')
  if out.exists():
    raise UserError(f'{out} exists; choose another name, or remove it first.')
  if what not in datasets.DATASETS and Path(what).exists():
    images, dataset = samples.open_images(what), {'dataset': str(what)}
  else:
    images, dataset = _dataset_images(str(what), Path(data_dir).expanduser(), split)
  found = _extract_reference(images, extractor, out.with_name(f'{out.name}.unfinished'))
  settings = features.settings(extractor) | dataset | {'pixels_sha256': found.fingerprint}
  if quantisation:
    settings['quantisation'] = quantisation
  references.write(out, found, settings)
  return {'reference': str(out), 'reference_n': images.n, **settings}


def dataset_reference(name: str, data_dir: Path, split: str, extractor: Extractor) -> Reference:
  """The reference of a data set, made on first use and kept in data_dir/references.

  Its file's name has all that it depends on, and its sha256 is the pixels'.
  Raises ValueError, one line, where the data cannot be read or the reference not be written.
  """
  _, dataset = _dataset_images(name, data_dir, split)
  ours = features.settings(extractor)
  parts = (name, split, dataset['fingerprint'], *(value[:20] for value in ours.values()))
  path = data_dir / 'references' / f'{"-".join(parts)}.npz'
  try:
    if not path.exists():
      make_reference(name, path, extractor, data_dir=data_dir, split=split)
  except OSError as error:
    raise UserError(
      f'{path} cannot be made ({error}): use --make_reference, and give its file as --reference.'
    ) from None
  reference = references.read(path)
  return dataclasses.replace(reference, sha256=reference.settings['pixels_sha256'])


def compare(fake: Features, reference: Reference, extractor: Extractor) -> dict[str, float]:
  """Every metric that the reference has the means for, by the name the report knows it by.

  The distance is called FID-50k if n = 50 000 and the weights are the public Inception's, FID if
  they are, and else FD-<extractor>.
  """
  n = fake.moments.n
  name, is_fid = distance_name(n, extractor), getattr(extractor, 'is_public', False)
  m = METRIC_SETTINGS
  mean, cov = fake.moments.mean, fake.moments.cov
  values = {name: metrics.frechet_distance(mean, cov, reference.mean, reference.cov)}
  if fake.spatial is not None and reference.spatial is not None:
    mean, cov = fake.spatial.mean, fake.spatial.cov
    values['sFID' if is_fid else f's{name}'] = metrics.frechet_distance(
      mean, cov, *reference.spatial
    )
  values['IS'], values['IS_std'] = metrics.inception_score(
    fake.probs, m['is_splits'], m['is_shuffle_seed']
  )
  if reference.features is not None:
    real = reference.features
    values['KID'], values['KID_std'] = metrics.kid(
      real, fake.kept, m['kid_subsets'], min(m['kid_subset_size'], n, len(real)), m['kid_seed']
    )
    values['precision'], values['recall'] = metrics.precision_recall(
      real, fake.kept, m['precision_recall_k']
    )
    values['density'], values['coverage'] = metrics.density_coverage(
      real, fake.kept, m['density_coverage_k']
    )
  return values


def distance_name(n: int, extractor: Extractor) -> str:
  """FID-50k of 50 000 samples by the public Inception weights, FID of others, else FD-…."""
  if not getattr(extractor, 'is_public', False):
    return f'FD-{extractor.name}'
  return 'FID-50k' if n == 50_000 else 'FID'


def provenance(reference: Reference) -> dict:
  """What a line of evals.jsonl says of its reference."""
  return {
    'reference': reference.settings.get('dataset', str(reference.path)),
    'reference_n': reference.n,
    'reference_sha256': reference.sha256,
  }


def load_reference(path: str | Path, extractor: Extractor, settings: dict) -> Reference:
  """Statistics at `path`, or else of the images there.

  settings: the samples' (`features.settings`, and their quantisation if known); ValueError, one
  line, where a file of statistics has others, or another number of features.
  """
  if not references.has_statistics(path):
    return references.of_features(path, _extract_reference(samples.open_images(path), extractor))
  reference = references.read(path)
  references.check(reference, settings, extractor.dim)
  if reference.features is None and reference.has_images:
    # ADM's way: FID from the stored statistics, precision and recall from the 10 000 images.
    found = _extract_reference(samples.open_images(path), extractor)
    reference = dataclasses.replace(reference, features=found.kept)
  return reference


def _extract_reference(
  images: samples.Images, extractor: Extractor, resume: Path | None = None
) -> Features:
  """Features of all images, of which KEPT rows, drawn from all, are kept."""
  keep = np.zeros(images.n, bool)
  chosen = np.random.RandomState(KEPT_SEED).permutation(images.n)[:KEPT]
  keep[chosen] = True
  return _features(images, images.n, extractor, keep=keep, resume=resume)


def _features(images: samples.Images, n: int, extractor: Extractor, **options) -> Features:
  progress = Progress(f'features {extractor.name}', n, unit='images')
  found = features.stream(images.batches(BATCH, n), extractor, progress=progress, **options)
  progress.done()
  return found


def _dataset_images(name: str, data_dir: Path, split: str) -> tuple[samples.Images, dict]:
  """A data set's images, and what a reference says of them."""
  dataset = datasets.get(name, data_dir)
  source = dataset.open(data_dir, split)

  def pieces() -> Iterator[np.ndarray]:
    for start in range(0, len(source), BATCH):
      rows = list(range(start, min(start + BATCH, len(source))))
      yield np.stack([example['image'] for example in source.__getitems__(rows)])

  images = samples.Images(data_dir / name, len(source), dataset.image_shape, pieces)
  return images, {
    'dataset': f'{name}-{split}',
    'fingerprint': datasets.fingerprint(source),
    'quantisation': 'round',
  }
