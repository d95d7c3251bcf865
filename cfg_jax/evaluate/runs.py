"""samples → evals.jsonl: a line for every sample set of a run, each number with its provenance."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import ml_collections
import numpy as np

from cfg_jax.core import config as config_lib
from cfg_jax.core import evals, files, locks
from cfg_jax.core.progress import Progress
from cfg_jax.core.versions import VERSION
from cfg_jax.evaluate import extractors, features, make_reference, real, scoring
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

  extractor: by default config.evaluate's. reference_path: what `make_reference.read_or_make` takes;
  by default the reference is the training data. Beside the lines it leaves what real images score,
  see `real`. Raises UserError where config is not the run's, samples are missing or damaged, or the
  reference does not fit; lines written before stay.
  """
  workdir, n = Path(workdir), config.sample.num_samples
  features.check_enough(n, f'num_samples={n}')
  config_lib.check_unchanged(config, workdir / 'config.json')  # a line tells of the run's own
  with _alone(workdir):
    _add_lines(config, workdir, step, extractor, reference_path)


def _add_lines(config, workdir, step, extractor, reference_path):
  n = config.sample.num_samples
  upgrade(workdir)
  path = workdir / 'evals.jsonl'
  lines = evals.read(path)
  extractor = extractor or extractors.make(config.evaluate.extractor)
  as_adm = config.evaluate.get('as_adm', False)
  settings = features.settings(extractor)
  quantisation = {'quantisation': config.sample.get('quantisation', 'round')}
  if reference_path:
    compared = settings if as_adm else settings | quantisation
    reference = make_reference.read_or_make(reference_path, extractor, compared)
  else:
    data_dir = files.expand(config.data.dir)
    reference = make_reference.of_dataset(config.data.name, data_dir, 'train', extractor)
  conditions = scoring.conditions(settings | quantisation, reference, as_adm)
  found_out = ('distance', 'metrics', 'errors', 'deviations')
  known = [{k: v for k, v in line.items() if k not in found_out} for line in lines]
  todo = []
  for sample_set in sample_sets(config.sample, step):
    line = _as_read(_provenance(config, workdir, sample_set) | conditions)
    if line not in known:
      todo.append((sample_set, line))
  if todo:
    progress = Progress(f'evaluate {workdir.name}', n * len(todo), unit='images')
  for sample_set, line in todo:
    found, labels = _features(workdir, sample_set, n, extractor, progress)
    has_labels = extractor.labels_of == config.data.name
    line |= scoring.results(
      found,
      reference,
      extractor,
      labels if has_labels else None,
      as_adm,
      in_turn=labels if config.sample.labels == 'balanced' else None,
      seed=config.sample.seed,
    )
    lines.append(line)
    evals.write(path, lines)
    shown = ', '.join(f'{k} {v:.4g}' for k, v in line['metrics'].items() if k not in SPREADS)
    print(f'evaluate {workdir.name}: w={sample_set.w:g}: {shown}', flush=True)
  if todo:
    progress.done()
  real.write(config, workdir, n, extractor, reference, as_adm)


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
  """Waits until no other process evaluates the run: each writes evals.jsonl as a whole."""
  lock = workdir / 'evaluate.lock'
  if locks.held(lock):
    print(f'evaluate {workdir.name}: waits for another process that evaluates it', flush=True)
  with locks.claim(lock, seconds=math.inf):
    yield


def _as_read(line: dict) -> dict:
  """The line as it is read again: JSON has no tuples."""
  return json.loads(json.dumps(line))


def _provenance(config: ml_collections.ConfigDict, workdir: Path, sample_set: SampleSet) -> dict:
  """What a line says of the samples."""
  return {
    'version': VERSION,
    'run': workdir.name,
    'dataset': config.data.name,
    'seed': config.seed,
    'step': sample_set.settings['step'],
    'settings': {'method': config.method.to_dict(), 'sample': sample_set.settings['sample']},
    'samples': sample_set.path,
    'n': config.sample.num_samples,
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

  resume = workdir / sample_set.path / 'features.unfinished'
  found = features.stream(batches(), extractor, progress=progress, resume=resume)
  return found, np.concatenate(labels)
