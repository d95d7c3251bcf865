"""What there is of runs beside their metrics: samples, logs of training, and what to do next."""

import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cfg_jax.core import files
from cfg_jax.core.config import flat
from cfg_jax.core.errors import UserError
from cfg_jax.data.names import class_names

LOG = 'metrics.jsonl'


class Training(NamedTuple):
  """The log of one run: steps (N,), and by name what was logged at each, nan where it was not."""

  run: str
  steps: np.ndarray
  values: dict[str, np.ndarray]
  of_steps: int | None  # how many there are to be, if that is known


def folders(workdir: Path) -> list[Path]:
  """The runs of a work directory, or it itself if it is one."""
  marks = ('config.json', LOG, 'evals.jsonl', 'samples')

  def is_run(folder: Path) -> bool:
    return folder.is_dir() and any((folder / mark).exists() for mark in marks)

  if is_run(workdir):
    return [workdir]
  return sorted(f for f in workdir.iterdir() if is_run(f)) if workdir.is_dir() else []


def has_log(folder: Path) -> bool:
  """Whether a training has logged anything."""
  return (folder / LOG).exists()


def config_of(folder: Path) -> dict:
  """The run's config by dotted names; empty where there is none. UserError where it is damaged."""
  if not (folder / 'config.json').exists():
    return {}
  record = files.read_sealed(folder / 'config.json')
  return flat(record.pop('config', {}) | record)


def draws(folder: Path) -> bool:
  """Whether samples are drawn from the run: a classifier's config has no section on them."""
  config = config_of(folder)
  return 'method.name' not in config or any(k.startswith(('sample.', 'evaluate.')) for k in config)


def trained(folder: Path) -> str:
  """What the run trained, its seed apart: equal for runs that differ in that alone."""
  config = config_of(folder)
  apart = ('seed', 'data.dir', 'versions', 'digest')
  kept = {
    k: v
    for k, v in config.items()
    if k not in apart and not k.startswith(('sample.', 'evaluate.', 'versions.'))
  }
  name = re.sub(r'(^|,)seed=\d+', '', folder.resolve().name) if not config else ''
  return json.dumps([name, kept], sort_keys=True)


def sampled(folder: Path, axis: str) -> tuple[list[dict], list[str]]:
  """A cell without metrics for every set of samples of a run, and notes on what cannot be read."""
  config, cells, notes = config_of(folder), [], []
  method = {k: v for k, v in config.items() if k.startswith('method.')}
  for path in sorted(folder.glob('samples/*/*/identity.json')):
    try:
      identity = files.read_json(path)
      settings = flat({'sample': identity['sample']})
      if not any(path.parent.glob('*.npz')) or not math.isfinite(settings[axis]):
        continue
    except (UserError, KeyError, TypeError, AttributeError, OSError) as error:
      notes.append(f'{path.relative_to(folder)}: left out, {error}.')
      continue
    cells.append(
      method
      | settings
      | {
        'run': folder.resolve().name,
        'dataset': config.get('data.name'),
        'seed': config.get('seed'),
        'step': identity.get('step'),
        'samples': str(path.parent.relative_to(folder)),
        **{'metrics': {}, 'errors': {}, 'deviations': {}},
      }
    )
  return cells, notes


def training(folder: Path) -> tuple[Training | None, list[str]]:
  """What a run has logged, and notes on what cannot be read."""
  notes = []
  lines, damaged = files.read_log(folder / LOG)
  if damaged:
    notes.append(f'{folder / LOG}: {damaged} damaged lines are left out.')
  lines = [x for x in lines if _number(x.get('step'))]
  if not lines:
    return None, notes
  names = dict.fromkeys(k for line in lines for k, v in line.items() if _number(v) and k != 'step')
  values = {
    k: np.array([x[k] if _number(x.get(k)) else math.nan for x in lines], float) for k in names
  }
  steps = np.array([line['step'] for line in lines], float)
  of_steps = config_of(folder).get('train.num_steps')
  return Training(folder.resolve().name, steps, values, of_steps), notes


def _number(value: object) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def classes(folder: Path) -> list[str]:
  """The names of the classes of the run's data, if the data is at hand and has any."""
  config = config_of(folder)
  return class_names(str(config.get('data.name')), str(config.get('data.dir')))


def next_steps(workdir: Path, lacking: Sequence[Path]) -> list[dict]:
  """What to do for runs that are not evaluated, in its order: why, and the command.

  lacking: their folders.
  """
  if not lacking:
    return []
  again = ('Then this page again.', f'python -m cfg_jax.report --workdir {_quoted(workdir)}')
  if (workdir / 'sweep.json').exists():
    names = ', '.join(folder.name for folder in lacking)
    why = f'It goes on from what is there; {names} {"has" if len(lacking) == 1 else "have"} no '
    why += f'metrics yet.{_weights(lacking[0])}'
    command = f'python -m cfg_jax.sweep --workdir {_quoted(workdir)} --retry'
    return [{'what': 'The sweep', 'steps': [(why, command)]}]
  return [
    {'what': folder.resolve().name, 'steps': [*_steps_of_run(folder), again]} for folder in lacking
  ]


def _steps_of_run(folder: Path) -> list[tuple[str, str]]:
  config, log = config_of(folder), training(folder)[0]
  at, steps, of_steps = f'--workdir {_quoted(folder)}', [], config.get('train.num_steps')
  what = 'metrics' if draws(folder) else 'scores of held-out images'
  if log and _number(of_steps) and log.steps[-1] < of_steps:
    why = f'It is at step {log.steps[-1]:.0f} of {of_steps}: the same command goes on.'
    steps.append((why, f'python -m cfg_jax.train --config … {at}'))
  if draws(folder) and not any(folder.glob('samples/*/*/*.npz')):
    steps.append(('It has no samples.', f'python -m cfg_jax.generate {at}'))
  steps.append((f'It has no {what}.{_weights(folder)}', f'python -m cfg_jax.evaluate {at}'))
  return steps


def _weights(folder: Path) -> str:
  """What the metrics need, where it is not in the package."""
  if config_of(folder).get('evaluate.extractor') != 'inception':
    return ''
  return ' They need the FID Inception weights: $CFG_JAX_INCEPTION=FILE, or fetched once.'


def _quoted(path: Path) -> str:
  return shlex.quote(str(path))
