"""Images → metrics: every number, under its name, with what it depends on."""

from pathlib import Path

import numpy as np

from cfg_jax.core.errors import UserError
from cfg_jax.evaluate import as_adm as adm
from cfg_jax.evaluate import errors, features, make_reference, metrics, references
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
  *,
  in_turn: np.ndarray | None = None,
  seed: int | None = None,
) -> dict:
  """What a line says of the numbers: `metrics`, which of them is the Fréchet `distance`, `errors`.

  labels: (N,) ints, where the extractor's classes are the samples' own: adds the accuracy.
  in_turn: (N,), labels of which every such set has as many of each. seed: of the samples' noise:
  adds `deviations` of the distance and of IS, see `errors.deviations`.
  """
  values = compare(found, reference, extractor)
  if as_adm:
    values |= adm.values(found, reference)
  name = distance_name(found.moments.n, extractor)
  told = {'distance': name, 'metrics': values}
  right = None
  if labels is not None:
    right = (found.logits.argmax(axis=1) == labels).astype(float)
    values['accuracy'] = float(np.mean(right))
  n, m = found.moments.n, METRIC_SETTINGS
  parts = (max(1, round(n / adm.SPLIT)), None) if as_adm else (m['is_splits'], m['is_shuffle_seed'])
  drawn = errors.resamples(n, seed or 0, in_turn)
  moved = {'IS': errors.inception_score(found.probs, drawn, *parts)}
  spreads = {'IS': float(np.std(moved['IS']))}
  for metric, influence in _influences(found, reference, extractor, values).items():
    strata = None if in_turn is None else in_turn[: len(influence)]
    spreads[metric] = errors.standard_error(influence, n, strata)
    if metric == name:
      moved[metric] = errors.deviations(influence, drawn, strata)
  if right is not None:
    spreads['accuracy'] = errors.standard_error(right, len(right), in_turn)
  if 'KID' in spreads:  # and which subsets were drawn
    drawn = values['KID_std'] / METRIC_SETTINGS['kid_subsets'] ** 0.5
    spreads['KID'] = float(np.hypot(spreads['KID'], drawn))
  told['errors'] = {k: spreads[k] for k in values if k in spreads}
  if seed is not None:
    told['deviations'] = {k: errors.rounded(moved[k]) for k in (name, 'IS')}
  return told


def _influences(
  found: Features,
  reference: Reference,
  extractor: Extractor,
  values: dict[str, float],
) -> dict[str, np.ndarray]:
  """Influences on every metric but IS and accuracy, see `errors`, (N,); on sFD of some images."""
  m = METRIC_SETTINGS
  mean, cov = found.moments.mean, found.moments.cov
  out = {
    distance_name(found.moments.n, extractor): errors.frechet(
      found.kept, mean, cov, reference.mean, reference.cov
    )
  }
  if found.spatial is not None and reference.spatial is not None:
    moments = found.spatial.mean, found.spatial.cov
    name = next(k for k in values if k.startswith('s'))
    out[name] = errors.frechet(found.spatial_kept, *moments, *reference.spatial)
  if reference.features is not None:
    out['KID'] = errors.kid(reference.features, found.kept)
    k, wide = m['precision_recall_k'], m['density_coverage_k']
    radii2 = reference.radii2(k), reference.radii2(wide)
    out |= errors.manifolds(reference.features, found.kept, k, wide, *radii2)
  return out


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
    k, wide = m['precision_recall_k'], m['density_coverage_k']
    values['precision'], values['recall'] = metrics.precision_recall(
      real, found.kept, k, reference.radii2(k)
    )
    values['density'], values['coverage'] = metrics.density_coverage(
      real, found.kept, wide, reference.radii2(wide)
    )
  return values


def distance_name(n: int, extractor: Extractor) -> str:
  """FID-50k of 50 000 samples by the public Inception weights, FID of others, else FD-…."""
  if not extractor.is_public:
    return f'FD-{extractor.name}'
  return 'FID-50k' if n == 50_000 else 'FID'
