"""How far a sweep is, as the files of its work directory tell it: for the launcher and --status."""

import math
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from cfg_jax.core import evals, files
from cfg_jax.core.checkpoint import steps_on_disk
from cfg_jax.evaluate import extractors, scoring
from cfg_jax.generate.store import sample_sets
from cfg_jax.plan import cost
from cfg_jax.sweep.grid import Run, Sampling


class Status(NamedTuple):
  """What there is of a run, and in `calls` how many network calls for one image are still to do."""

  step: int
  num_steps: int
  note: str  # of the training
  trained: bool
  images: int
  num_images: int
  calls: int
  cells: int
  num_cells: int

  @property
  def done(self) -> bool:
    """Whether nothing is left to do."""
    return self.trained and (self.images, self.cells) == (self.num_images, self.num_cells)


def read(workdir: Path, run: Run) -> Status:
  """Reads the files of one run."""
  folder, train = workdir / run.name, run.config.train
  trained = max(steps_on_disk(folder), default=0) >= train.num_steps
  trained = trained and (folder / 'config.json').exists()  # which training writes again
  step, note = (train.num_steps, '') if trained else _training(folder, train)
  images = num_images = calls = cells = num_cells = 0
  for sampling in run.samplings:
    n, shared = sampling.config.sample.num_samples, cost.shared_calls(sampling.config)
    lacking = set()  # the indices that any w lacks
    for sample_set in sample_sets(sampling.config.sample, sampling.step):
      absent = set(range(n)) - sample_set.present(folder)
      images += n - len(absent)
      num_images += n
      calls += len(absent) * (cost.image_calls(sampling.config, sample_set.w) - shared)
      lacking |= absent
    calls += len(lacking) * shared
    cells += len(evaluated(folder, sampling))
    num_cells += len(sampling.config.sample.guidance.w)
  return Status(step, train.num_steps, note, trained, images, num_images, calls, cells, num_cells)


def _training(folder, train):
  """The last logged step, and a few words on it."""
  lines, _ = files.read_log(folder / 'metrics.jsonl')
  lines = [line for line in lines if all(_is_number(line.get(k)) for k in ('step', 'loss'))]
  if not lines:
    return 0, ''
  last = lines[-1]
  note = f'loss {last["loss"]:.3f}'
  # There is no rate where the line is of the step alone that was compiled.
  if _is_number(rate := last.get('images_per_s')) and rate > 0:
    note += f', {(train.num_steps - last["step"]) * train.batch_size / rate:.0f} s left'
  return last['step'], note


def _is_number(value):
  return isinstance(value, int | float) and math.isfinite(value)


def missing(folder: Path, sampling: Sampling, indices: range) -> bool:
  """Whether any image with one of these indices is still to be drawn."""
  sets = sample_sets(sampling.config.sample, sampling.step)
  return any(not set(indices) <= s.present(folder) for s in sets)


def evaluated(folder: Path, sampling: Sampling) -> list[dict]:
  """The lines of evals.jsonl that are of this sampling's cells."""
  config = sampling.config
  ours = {'n': config.sample.num_samples, 'dataset': config.data.name}
  ours |= {'metric_settings': scoring.METRIC_SETTINGS}
  paths = {s.path for s in sample_sets(config.sample, sampling.step)}
  lines = {}
  for line in evals.read(folder / 'evals.jsonl'):
    if line.get('samples') not in paths or not ours.items() <= line.items():
      continue
    if extractors.has_measured(config.evaluate.extractor, line):
      lines[line['samples']] = line
  return list(lines.values())


class Board:
  """One line for each run: a live table on a terminal; elsewhere lines that changed, now and then.

  seconds: the least time between two lines that say the same of a run but for its numbers.
  """

  HEAD = ('model', 'step', 'images', 'evaluated', '')

  def __init__(self, seconds: float = 15.0):
    """Writes to stdout."""
    self._live = sys.stdout.isatty()
    self._seconds, self._height, self._printed = seconds, 0, {}

  def show(self, rows: list[tuple[str, Status, str]]) -> None:
    """Shows (name, status, state) for each run."""
    cells = [
      (
        name,
        f'{status.step}/{status.num_steps}',
        f'{status.images}/{status.num_images}',
        f'{status.cells}/{status.num_cells}',
        ', '.join(filter(None, (state, status.note if state == 'running' else ''))),
      )
      for name, status, state in rows
    ]
    if self._live:
      width = shutil.get_terminal_size().columns - 1  # a line that wraps would be two
      lines = [line[:width] for line in table([self.HEAD, *cells])]
      up = f'\x1b[{self._height}A' if self._height else ''
      print(up + ''.join(f'\r\x1b[K{line}\n' for line in lines), end='', flush=True)
      self._height = len(lines)
      return
    for (name, status, state), (_, step, images, evaluated, words) in zip(rows, cells):
      stage = state, status.trained, status.images == status.num_images, status.done
      before, then, line = self._printed.get(name, (None, 0.0, ''))
      now = time.monotonic()
      text = f'{name}: step {step}, images {images}, evaluated {evaluated}: {words}'
      if stage != before or (now - then > self._seconds and text != line):
        self._printed[name] = stage, now, text
        print(text, flush=True)


def table(rows: list[tuple[str, ...]]) -> list[str]:
  """Rows of text as aligned lines."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return ['  '.join(f'{text:<{n}}' for text, n in zip(row, widths)).rstrip() for row in rows]
