"""samples → evals.jsonl: one line for every sample set, each number with its provenance.

  python -m cfg_jax.evaluate --workdir runs/digits/p_uncond=0.1 [--w 0,1 --num_samples 1000]

Settings not given are the run's own. What has a line already is not evaluated again.
"""

import dataclasses
import json
from pathlib import Path

import ml_collections
import numpy as np
from absl import flags

from cfg_jax import cli, sharding
from cfg_jax import config as config_lib
from cfg_jax.checkpoint import Checkpoints
from cfg_jax.evaluation import features, metrics
from cfg_jax.evaluation.digits import DigitsExtractor
from cfg_jax.generate import config_from_flags, define_flags, sample_sets
from cfg_jax.samples import SampleSet

EXTRACTORS = {'digits': DigitsExtractor}
DISTANCE = {'digits': 'FD-digits'}  # the name FID belongs to Inception


def evaluate(config: ml_collections.ConfigDict, workdir: Path, step: int) -> None:
  """Adds to workdir/evals.jsonl a line for every set of config.sample at `step` that has none yet.

  Raises ValueError where samples are missing.
  """
  path = Path(workdir) / 'evals.jsonl'
  lines = _whole_lines(path)
  extractor = EXTRACTORS[config.evaluate.extractor]()
  reference = _reference(config, extractor)
  for sample_set in sample_sets(config, step):
    line = _provenance(config, workdir, sample_set) | features.settings(extractor)
    line |= reference.provenance
    if any(line == {k: v for k, v in known.items() if k != 'metrics'} for known in lines):
      continue
    line['metrics'] = _metrics(config, workdir, sample_set, extractor, reference)
    lines.append(line)
    config_lib.write_atomically(path, ''.join(json.dumps(line) + '\n' for line in lines))
    shown = ', '.join(f'{k} {v:.4g}' for k, v in line['metrics'].items() if not k.endswith('_std'))
    print(f'evaluate {Path(workdir).name}: w={sample_set.w:g}: {shown}', flush=True)


@dataclasses.dataclass
class _Reference:
  """Features of the data that samples are compared with."""

  provenance: dict
  features: features.Features


def _reference(config, extractor) -> _Reference:
  source = config_lib.dataset_of(config).open(Path(config.data.dir).expanduser(), 'train')
  batches = (
    np.stack(
      [
        example['image']
        for example in source.__getitems__(list(range(k, min(k + 500, len(source)))))
      ]
    )
    for k in range(0, len(source), 500)
  )
  found = features.stream(batches, extractor)
  return _Reference(
    {
      'reference': f'{config.data.name}-train',
      'reference_n': found.moments.n,
      'reference_sha256': found.fingerprint,
    },
    found,
  )


def _provenance(config, workdir, sample_set: SampleSet) -> dict:
  """What a line says of the samples."""
  settings = dataclasses.asdict(sample_set)
  settings['T'] = settings.pop('num_steps')
  return {
    'run': Path(workdir).name,
    'dataset': config.data.name,
    'p_uncond': config.train.p_uncond,
    **settings,
    'n': config.sample.num_samples,
    'samples': sample_set.path,
  }


def _metrics(config, workdir, sample_set, extractor, reference) -> dict[str, float]:
  """Every metric of one sample set."""
  labels = []

  def batches():
    for images, c in sample_set.read(workdir, config.sample.num_samples):
      labels.append(c)
      yield images

  found = features.stream(batches(), extractor)
  real, fake = reference.features, found
  distance = metrics.frechet_distance(
    fake.moments.mean, fake.moments.cov, real.moments.mean, real.moments.cov
  )
  score, score_std = metrics.inception_score(fake.probs)
  kid, kid_std = metrics.kid(real.kept, fake.kept, subset_size=min(1000, fake.moments.n))
  precision, recall = metrics.precision_recall(real.kept, fake.kept)
  density, coverage = metrics.density_coverage(real.kept, fake.kept)
  accuracy = np.mean(fake.probs.argmax(axis=1) == np.concatenate(labels))
  return {
    DISTANCE[extractor.name]: distance,
    'IS': score,
    'IS_std': score_std,
    'KID': kid,
    'KID_std': kid_std,
    'precision': precision,
    'recall': recall,
    'density': density,
    'coverage': coverage,
    'accuracy': float(accuracy),  # the extractor's class is the one asked for
  }


def _whole_lines(path: Path) -> list[dict]:
  """The lines on disk; a file that is no JSON lines is an error, never overwritten."""
  if not path.exists():
    return []
  try:
    return [json.loads(line) for line in path.read_text().splitlines()]
  except json.JSONDecodeError as error:
    raise ValueError(f'{path} is not JSON lines ({error}); move it away.') from None


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  config, workdir = config_from_flags(), Path(flags.FLAGS.workdir)
  sharding.setup_jax(config.sample.batch_size)
  steps = Checkpoints(workdir).steps()
  if not steps:
    raise ValueError(f'{workdir} has no checkpoint: train first.')
  evaluate(config, workdir, flags.FLAGS.step or steps[-1])


if __name__ == '__main__':
  define_flags()
  cli.run(main)
