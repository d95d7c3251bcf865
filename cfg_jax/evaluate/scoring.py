"""Images → metrics: every number, under its name, with what it depends on."""

from pathlib import Path

import numpy as np

from cfg_jax.core.errors import UserError
from cfg_jax.evaluate import as_adm as adm
from cfg_jax.evaluate import features, make_reference, metrics, references
from cfg_jax.evaluate.features import Extractor, Features
from cfg_jax.evaluate.images import open_images
from cfg_jax.evaluate.references import Reference

METRIC_SETTINGS = {
  'is_splits': 10,
  'is_shuffle_seed': 2020,
  'kid_subsets': 100,
  'kid_subset_size': 1000,
  'kid_seed': 2020,
  'precision_recall_k': 3,
  'density_coverage_k': 5,
}


def score(
  path: str | Path,
  reference_path: str | Path,
  extractor: Extractor,
  *,
  num_samples: int | None = None,
  quantisation: str | None = None,
  resume: Path | None = None,
  as_adm: bool = False,
) -> dict:
  """All metrics of the images at `path`, with their provenance: a line of JSON.

  path: what `images.open_images` reads. reference_path: what `references.read` reads, or images, of
  which a reference is made here. num_samples: the first so many, by default all. quantisation: how
  the samples became uint8, if known ('round' or 'truncate'). resume: a file from which an
  interrupted evaluation goes on, see `features.stream`. as_adm: see the module of that name; the
  samples are then taken to be truncated, unless quantisation says otherwise.
  Raises UserError; where the reference cannot fit, before any sample is looked at.
  """
  images = open_images(path)
  n = images.n if num_samples is None else num_samples
  features.check_enough(n, f'num_samples={n}')
  if n > images.n:
    raise UserError(f'num_samples={n} of the {images.n} images in {path}.')
  settings = features.settings(extractor)
  if quantisation and not as_adm:
    settings['quantisation'] = quantisation
  extractor(next(images.batches(1)))  # refuses images of a kind that it does not take
  reference = make_reference.read_or_make(reference_path, extractor, settings)
  found = features.of_images(images, extractor, n, resume=resume)
  samples = {'samples': str(path), 'samples_sha256': found.fingerprint, 'n': n}
  if as_adm:
    settings['quantisation'] = quantisation or 'truncate'
  told = conditions(settings, reference, as_adm)
  return samples | told | results(found, reference, extractor, as_adm=as_adm)


def conditions(settings: dict, reference: Reference, as_adm: bool = False) -> dict:
  """What a line says of the extractor, the reference and the metrics' own settings."""
  ways = METRIC_SETTINGS | (adm.SETTINGS if as_adm else {})
  return settings | references.provenance(reference) | {'metric_settings': ways}


def results(
  found: Features,
  reference: Reference,
  extractor: Extractor,
  labels: np.ndarray | None = None,
  as_adm: bool = False,
) -> dict:
  """What a line says of the numbers: `metrics`, and which of them is the Fréchet `distance`.

  labels: (N,) ints, where the extractor's classes are the samples' own: adds the accuracy.
  """
  values = compare(found, reference, extractor)
  if as_adm:
    values |= adm.values(found, reference)
  if labels is not None:
    values['accuracy'] = float(np.mean(found.logits.argmax(axis=1) == labels))
  return {'distance': distance_name(found.moments.n, extractor), 'metrics': values}


def compare(found: Features, reference: Reference, extractor: Extractor) -> dict[str, float]:
  """Every metric that the reference has the means for, by its name in `metrics.METRICS`."""
  n, m = found.moments.n, METRIC_SETTINGS
  name = distance_name(n, extractor)
  mean, cov = found.moments.mean, found.moments.cov
  values = {name: metrics.frechet_distance(mean, cov, reference.mean, reference.cov)}
  if found.spatial is not None and reference.spatial is not None:
    mean, cov = found.spatial.mean, found.spatial.cov
    spatial_name = 'sFID' if extractor.is_public else f's{name}'
    values[spatial_name] = metrics.frechet_distance(mean, cov, *reference.spatial)
  values['IS'], values['IS_std'] = metrics.inception_score(
    found.probs, m['is_splits'], m['is_shuffle_seed']
  )
  if reference.features is not None:
    real = reference.features
    values['KID'], values['KID_std'] = metrics.kid(
      real, found.kept, m['kid_subsets'], min(m['kid_subset_size'], n, len(real)), m['kid_seed']
    )
    values['precision'], values['recall'] = metrics.precision_recall(
      real, found.kept, m['precision_recall_k']
    )
    values['density'], values['coverage'] = metrics.density_coverage(
      real, found.kept, m['density_coverage_k']
    )
  return values


def distance_name(n: int, extractor: Extractor) -> str:
  """FID-50k of 50 000 samples by the public Inception weights, FID of others, else FD-…."""
  if not extractor.is_public:
    return f'FD-{extractor.name}'
  return 'FID-50k' if n == 50_000 else 'FID'
