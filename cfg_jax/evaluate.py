"""samples → evals.jsonl: one line for every sample set, each number with its provenance.

  python -m cfg_jax.evaluate --workdir runs/digits/p_uncond=0.1 [--w 0,1 --num_samples 1000]
  python -m cfg_jax.evaluate --samples anything.npz --reference VIRTUAL_imagenet64_labeled.npz
  python -m cfg_jax.evaluate --make_reference imagenet64 --out refs/imagenet64_train.npz

1. Of a run, settings not given are its own, and what has a line already is not evaluated again.
2. Samples from elsewhere (.npz, a folder of pictures) give one JSON line on stdout.
3. A reference holds the statistics of a data set, or of any images, for --reference of 1 and 2.

Killed, each goes on where it was when the same command is given again.
"""

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path

import ml_collections
import numpy as np
from absl import flags

from cfg_jax import cli, generate, sharding
from cfg_jax import config as config_lib
from cfg_jax.checkpoint import steps_on_disk
from cfg_jax.evaluation import external, features
from cfg_jax.evaluation.extractors import EXTRACTORS
from cfg_jax.evaluation.features import Extractor
from cfg_jax.evaluation.inception import Inception
from cfg_jax.progress import Progress
from cfg_jax.sample_set import SampleSet


def evaluate(
  config: ml_collections.ConfigDict,
  workdir: Path,
  step: int,
  *,
  extractor: Extractor | None = None,
  reference_path: str | None = None,
) -> None:
  """Adds to workdir/evals.jsonl a line for every set of config.sample at `step` that has none yet.

  extractor: by default config.evaluate's. The reference is a file of statistics, or the training
  data. Raises ValueError, one line, where samples are missing or damaged, or the reference does
  not fit; lines written before stay.
  """
  n = config.sample.num_samples
  external.check_enough(n)
  path = Path(workdir) / 'evals.jsonl'
  lines = _whole_lines(path)
  extractor = extractor or EXTRACTORS[config.evaluate.extractor]()
  settings = features.settings(extractor) | {'quantisation': 'round'}
  if reference_path:
    reference = external.load_reference(reference_path, extractor, settings)
  else:
    data_dir = Path(config.data.dir).expanduser()
    reference = external.dataset_reference(config.data.name, data_dir, 'train', extractor)
  todo = []
  for sample_set in generate.sample_sets(config, step):
    line = _provenance(config, workdir, sample_set) | settings | external.provenance(reference)
    line['metric_settings'] = external.METRIC_SETTINGS
    if not any(line == {k: v for k, v in known.items() if k != 'metrics'} for known in lines):
      todo.append((sample_set, line))
  if not todo:
    return
  progress = Progress(f'evaluate {Path(workdir).name}', n * len(todo), unit='images')
  for sample_set, line in todo:
    found, labels = _features(workdir, sample_set, n, extractor, progress)
    line['metrics'] = external.compare(found, reference, extractor)
    if extractor.name == config.data.name:  # its classes are the labels
      line['metrics']['accuracy'] = float(np.mean(found.logits.argmax(axis=1) == labels))
    lines.append(line)
    config_lib.write_atomically(path, ''.join(json.dumps(line) + '\n' for line in lines))
    shown = ', '.join(f'{k} {v:.4g}' for k, v in line['metrics'].items() if not k.endswith('_std'))
    print(f'evaluate {Path(workdir).name}: w={sample_set.w:g}: {shown}', flush=True)
  progress.done()


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


def _features(
  workdir: Path, sample_set: SampleSet, n: int, extractor: Extractor, progress: Progress
) -> tuple[features.Features, np.ndarray]:
  """Features and labels of one sample set; an interrupted pass goes on from a file beside it."""
  labels = []

  def batches():
    for images, c in sample_set.read(workdir, n):
      labels.append(c)
      yield images

  resume = Path(workdir) / sample_set.path / 'features.unfinished'
  found = features.stream(batches(), extractor, progress=progress, resume=resume)
  return found, np.concatenate(labels)


def _whole_lines(path: Path) -> list[dict]:
  """The lines on disk; a file that is no JSON lines is an error, never overwritten."""
  if not path.exists():
    return []
  try:
    return [json.loads(line) for line in path.read_text().splitlines()]
  except json.JSONDecodeError as error:
    raise ValueError(f'{path} is not JSON lines ({error}); move it away.') from None


def define_flags() -> None:
  """The command's flags, those of `generate` among them."""
  generate.define_flags()
  flags.DEFINE_string('samples', None, 'Samples from elsewhere: an .npz or a folder of pictures.')
  flags.DEFINE_string('make_reference', None, 'A data set, or images, to make a reference of.')
  flags.DEFINE_string('reference', None, 'Statistics, or images, to compare with.')
  flags.DEFINE_string('out', None, 'The reference to write, an .npz.')
  flags.DEFINE_enum(
    'extractor', None, list(EXTRACTORS), "By default the run's own; inception for other samples."
  )
  flags.DEFINE_enum(
    'resize',
    'tf1',
    ['tf1', 'half_pixel'],
    "Inception's: as ADM and torch-fidelity, or pytorch-fid.",
  )
  flags.DEFINE_boolean(
    'unknown_weights', False, 'Allows Inception weights of another sha256; nothing is called FID.'
  )
  flags.DEFINE_enum(
    'quantisation', None, ['round', 'truncate'], 'How images from elsewhere became uint8, if known.'
  )
  flags.DEFINE_string(
    'data_dir', '~/tensorflow_datasets', 'Where --make_reference finds data sets.'
  )


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS
  if sum(bool(given[name].value) for name in ('workdir', 'samples', 'make_reference')) != 1:
    raise ValueError('give one of --workdir, --samples and --make_reference: see --help.')
  if given.workdir:
    _of_run(given)
    return
  sharding.setup_jax()
  with contextlib.redirect_stdout(sys.stderr):  # progress: stdout is for the line alone
    line = _of_samples(given) if given.samples else _reference(given)
  print(json.dumps(line))


def _of_run(given: flags.FlagValues) -> None:
  config, workdir = generate.config_from_flags(), Path(given.workdir)
  sharding.setup_jax(config.sample.batch_size)
  steps = steps_on_disk(workdir)
  if not steps:
    raise ValueError(f'{workdir} has no checkpoint: train first.')
  evaluate(
    config,
    workdir,
    given.step or steps[-1],
    extractor=_extractor(given, config.evaluate.extractor),
    reference_path=given.reference,
  )


def _of_samples(given: flags.FlagValues) -> dict:
  if not given.reference:
    raise ValueError('--samples needs a --reference: statistics, or images, to compare with.')
  path = Path(given.samples).absolute()
  return external.evaluate(
    given.samples,
    given.reference,
    _extractor(given),
    num_samples=given.num_samples,
    quantisation=given.quantisation,
    resume=path.with_name(f'{path.name}.unfinished') if os.access(path.parent, os.W_OK) else None,
  )


def _reference(given: flags.FlagValues) -> dict:
  if not given.out:
    raise ValueError('--make_reference needs --out: the .npz to write.')
  return external.make_reference(
    given.make_reference,
    given.out,
    _extractor(given),
    data_dir=given.data_dir,
    quantisation=given.quantisation,
  )


def _extractor(given: flags.FlagValues, default: str = 'inception') -> Extractor:
  name = given.extractor or default
  if name != 'inception':
    return EXTRACTORS[name]()
  return Inception(resize=given.resize, unknown_weights=given.unknown_weights)


if __name__ == '__main__':
  define_flags()
  cli.run(main)
