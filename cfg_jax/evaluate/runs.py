"""samples → evals.jsonl: a line for every sample set of a run, each number with its provenance."""

from pathlib import Path

import ml_collections
import numpy as np

from cfg_jax.core import files
from cfg_jax.core.progress import Progress
from cfg_jax.core.versions import VERSION
from cfg_jax.evaluate import features
from cfg_jax.evaluate import scoring as external
from cfg_jax.evaluate.extractors import EXTRACTORS
from cfg_jax.evaluate.features import Extractor
from cfg_jax.evaluate.metrics import SPREADS
from cfg_jax.generate.store import SampleSet, sample_sets
from cfg_jax.generate.upgrade import upgrade


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
  upgrade(workdir)
  path = Path(workdir) / 'evals.jsonl'
  lines = files.read_jsonl(path)
  extractor = extractor or EXTRACTORS[config.evaluate.extractor]()
  settings = features.settings(extractor) | {'quantisation': 'round'}
  if reference_path:
    reference = external.load_reference(reference_path, extractor, settings)
  else:
    data_dir = Path(config.data.dir).expanduser()
    reference = external.dataset_reference(config.data.name, data_dir, 'train', extractor)
  todo = []
  for sample_set in sample_sets(config.sample, step):
    line = _provenance(config, workdir, sample_set) | settings | external.provenance(reference)
    line['metric_settings'] = external.METRIC_SETTINGS
    if not any(line == _without_results(known) for known in lines):
      todo.append((sample_set, line))
  if not todo:
    return
  progress = Progress(f'evaluate {Path(workdir).name}', n * len(todo), unit='images')
  for sample_set, line in todo:
    found, labels = _features(workdir, sample_set, n, extractor, progress)
    line['metrics'] = external.compare(found, reference, extractor)
    line['distance'] = external.distance_name(n, extractor)
    if extractor.name == config.data.name:  # its classes are the labels
      line['metrics']['accuracy'] = float(np.mean(found.logits.argmax(axis=1) == labels))
    lines.append(line)
    files.write_text(path, files.json_lines(lines))
    shown = ', '.join(f'{k} {v:.4g}' for k, v in line['metrics'].items() if k not in SPREADS)
    print(f'evaluate {Path(workdir).name}: w={sample_set.w:g}: {shown}', flush=True)
  progress.done()


def _without_results(line):
  return {k: v for k, v in line.items() if k not in ('metrics', 'distance')}


def _provenance(config, workdir, sample_set: SampleSet) -> dict:
  """What a line says of the samples."""
  return {
    'version': VERSION,
    'run': Path(workdir).name,
    'dataset': config.data.name,
    'seed': config.seed,
    'step': sample_set.settings['step'],
    'settings': {'method': config.method.to_dict(), 'sample': sample_set.settings['sample']},
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
