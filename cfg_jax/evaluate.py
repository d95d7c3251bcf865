"""samples → evals.jsonl: one line for every sample set, each number with its provenance.

  python -m cfg_jax.evaluate --workdir runs/digits/p_uncond=0.1 [--w 0,1 --num_samples 1000]
  python -m cfg_jax.evaluate --samples anything.npz --reference VIRTUAL_imagenet64_labeled.npz
  python -m cfg_jax.evaluate --make_reference imagenet64 --out refs/imagenet64_train.npz

Of a run, settings not given are its own, and what has a line already is not evaluated again.
Samples from elsewhere (.npz, a folder of pictures) give one JSON line on stdout.
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
from cfg_jax.evaluation import external, features
from cfg_jax.evaluation.digits import DigitsExtractor
from cfg_jax.evaluation.inception import Inception
from cfg_jax.generate import config_from_flags, define_flags, sample_sets
from cfg_jax.sample_set import SampleSet

EXTRACTORS = {'digits': DigitsExtractor, 'inception': Inception}


def evaluate(
  config: ml_collections.ConfigDict, workdir: Path, step: int, reference_path: str | None = None
) -> None:
  """Adds to workdir/evals.jsonl a line for every set of config.sample at `step` that has none yet.

  The reference is a file of statistics, or the training data. Raises ValueError where samples are
  missing.
  """
  path = Path(workdir) / 'evals.jsonl'
  lines = _whole_lines(path)
  extractor = EXTRACTORS[config.evaluate.extractor]()
  settings = features.settings(extractor) | {'quantisation': 'round'}
  data_dir = Path(config.data.dir).expanduser()
  if reference_path:
    dim = extractor(np.zeros((1, *config_lib.dataset_of(config).image_shape), np.uint8))
    reference = external.load_reference(
      reference_path, extractor, settings, dim['features'].shape[1]
    )
  else:
    reference = external.dataset_reference(config.data.name, data_dir, 'train', extractor)
  for sample_set in sample_sets(config, step):
    line = _provenance(config, workdir, sample_set) | settings | external.provenance(reference)
    line['metric_settings'] = external.METRIC_SETTINGS
    if any(line == {k: v for k, v in known.items() if k != 'metrics'} for known in lines):
      continue
    found, labels = _features(config, workdir, sample_set, extractor)
    line['metrics'] = external.compare(found, reference, extractor)
    if extractor.name == config.data.name:  # its classes are the labels
      line['metrics']['accuracy'] = float(np.mean(found.logits.argmax(axis=1) == labels))
    lines.append(line)
    config_lib.write_atomically(path, ''.join(json.dumps(line) + '\n' for line in lines))
    shown = ', '.join(f'{k} {v:.4g}' for k, v in line['metrics'].items() if not k.endswith('_std'))
    print(f'evaluate {Path(workdir).name}: w={sample_set.w:g}: {shown}', flush=True)


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


def _features(config, workdir, sample_set, extractor) -> tuple[features.Features, np.ndarray]:
  """Features and labels of one sample set; an interrupted pass goes on from a file beside it."""
  n, labels = config.sample.num_samples, []

  def batches():
    for images, c in sample_set.read(workdir, n):
      labels.append(c)
      yield images

  resume = Path(workdir) / sample_set.path / 'features.unfinished'
  found = features.stream(batches(), extractor, resume=resume)
  return found, np.concatenate(labels)


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
  given = flags.FLAGS
  if sum(bool(given[name].value) for name in ('workdir', 'samples', 'make_reference')) != 1:
    raise ValueError('give one of --workdir, --samples and --make_reference: see --help.')
  if given.workdir:
    config, workdir = config_from_flags(), Path(given.workdir)
    sharding.setup_jax(config.sample.batch_size)
    steps = Checkpoints(workdir).steps()
    if not steps:
      raise ValueError(f'{workdir} has no checkpoint: train first.')
    evaluate(config, workdir, given.step or steps[-1], given.reference)
    return
  sharding.setup_jax()
  if given.extractor not in EXTRACTORS:
    raise ValueError(f'--extractor={given.extractor} must be one of {", ".join(EXTRACTORS)}.')
  needed = 'reference' if given.samples else 'out'
  if not given[needed].value:
    raise ValueError(f'--{needed} is missing: see --help.')
  extractor = EXTRACTORS[given.extractor]()
  if given.samples:
    line = external.evaluate(
      given.samples, given.reference, extractor, num_samples=given.num_samples
    )
  else:
    line = external.make_reference(
      given.make_reference, given.out, extractor, data_dir=Path(given.data_dir).expanduser()
    )
  print(json.dumps(line))


if __name__ == '__main__':
  define_flags()
  flags.DEFINE_string('samples', None, 'Samples from elsewhere: an .npz or a folder of pictures.')
  flags.DEFINE_string('reference', None, 'Statistics, or images, to compare with.')
  flags.DEFINE_string('make_reference', None, 'A data set, or images, to make a reference of.')
  flags.DEFINE_string('out', None, 'The reference to write.')
  flags.DEFINE_string('extractor', 'inception', 'For samples from elsewhere: inception or digits.')
  flags.DEFINE_string('data_dir', '~/tensorflow_datasets', 'Where data sets are prepared.')
  cli.run(main)
