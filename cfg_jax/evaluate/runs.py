"""samples → evals.jsonl: a line for every sample set of a run, each number with its provenance."""

import dataclasses
import json
from pathlib import Path

import ml_collections
import numpy as np

from cfg_jax.core import config as config_lib
from cfg_jax.core.progress import Progress
from cfg_jax.evaluate import features
from cfg_jax.evaluate import scoring as external
from cfg_jax.evaluate.extractors import EXTRACTORS
from cfg_jax.evaluate.features import Extractor
from cfg_jax.generate import draw as generate
from cfg_jax.generate.store import SampleSet


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
