"""Lines of evals.jsonl → cells: flat dicts, a setting by its dotted name in the config."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cfg_jax.core import evals
from cfg_jax.core.config import flat
from cfg_jax.core.errors import UserError
from cfg_jax.core.versions import VERSION
from cfg_jax.evaluate.metrics import SPREADS, Metric, by_name
from cfg_jax.generate.upgrade import upgrade
from cfg_jax.report import runs as runs_lib
from cfg_jax.report.told import told as noise_told

# Fields of a line that say which samples it is of, beside the settings, and how they were measured.
SAMPLES = ('run', 'dataset', 'seed', 'step')
MEASURE = (
  *('n', 'dataset', 'extractor', 'resize', 'reference', 'reference_n'),
  *('extractor_sha256', 'reference_sha256'),
)
_APART = ('version', 'settings', 'distance', 'metrics', 'errors', 'deviations')  # no columns
SEEDS = ('seed', 'sample.seed')  # of training, and of the samples' noise
_SAMPLER = tuple(f'sample.sampler.{k}' for k in ('name', 'grid', 'num_steps'))


class Results(NamedTuple):
  """Every cell of a work directory, in the order of tables.

  fields: the short name of every field, by its dotted one, in the order of columns. metrics: every
  metric by the name that it has here, in order. notes: what could not be read.
  """

  runs: dict[str, Path]
  cells: tuple[dict, ...]
  fields: dict[str, str]
  metrics: dict[str, Metric | None]
  notes: tuple[str, ...]
  models: dict[str, str]  # what each run trained, its seed apart
  unevaluated: tuple[dict, ...]  # samples on disk that no line is of, as cells
  workdir: Path

  @property
  def told(self) -> list[str]:
    """The metrics but for those that are the spread of another, and are told with it."""
    return [k for k in self.metrics if k not in SPREADS]

  def text(self, cell: dict, metric: str) -> str:
    """A metric of a cell for a reader, with its standard error where that is known."""
    value = cell['metrics'].get(metric, math.nan)
    return noise_told(value, cell['errors'].get(metric, math.nan))


def is_number(value: object) -> bool:
  """True for ints and floats, false for bools and all else."""
  return isinstance(value, int | float) and not isinstance(value, bool)


def is_setting(field: str) -> bool:
  """True for a field of the config: settings have dots in their names, the rest of a line none."""
  return '.' in field


def read(workdir: Path, axis: str) -> Results:
  """All cells of `<workdir>/*/evals.jsonl`, or of `<workdir>/evals.jsonl` if it is one run itself.

  axis: the setting, by its dotted name, that must be a number in every cell. The folder names the
  run. Of lines that differ in metrics alone the last counts. A line that is no cell, or was not
  written to its end, is left out and named in `notes`. Samples that no line is of become cells
  without metrics. UserError where there is nothing of a run at all.
  """
  cells, runs, notes = {}, {}, []
  for path in (workdir / 'evals.jsonl', *sorted(workdir.glob('*/evals.jsonl'))):
    lines, where = _lines(path), path.relative_to(workdir)
    for number, line in enumerate(lines, start=1):
      try:
        cell = _cell(line, path.parent.resolve().name, axis)
      except (ValueError, OverflowError) as error:
        notes.append(f'{where}, line {number}: left out, {error}.')
        continue
      runs[cell['run']] = path.parent
      found_out = dict.fromkeys(('metrics', 'errors', 'deviations'))
      cells[json.dumps(cell | found_out, sort_keys=True)] = cell
    if path.exists() and path.read_bytes().rpartition(b'\n')[2]:
      notes.append(f'{where}, line {len(lines) + 1}: left out, it has no end.')
  unevaluated = []
  for folder in runs_lib.folders(workdir):
    found, told = runs_lib.sampled(folder, axis)
    known = {(c['run'], c.get('samples')) for c in cells.values()}
    unevaluated += [c for c in found if (c['run'], c['samples']) not in known]
    notes += told
    runs.setdefault(folder.resolve().name, folder)
  if not cells and not unevaluated and not any(map(runs_lib.has_log, runs.values())):
    raise UserError(
      f'workdir={str(workdir)!r} holds no run: no evaluated cell (<run>/evals.jsonl), no samples '
      'and no log of a training; run cfg_jax.sweep or cfg_jax.train first.'
    )
  columns = _columns([*cells.values(), *unevaluated], axis)
  order = [k for k in columns if k.startswith('method.')]  # then the run, the rest, and the axis
  order += [k for k in columns if k not in (*order, axis, 'samples')] + [axis, 'samples']

  def key(item: tuple[str, dict]) -> tuple:
    return (*(_order(item[1].get(k)) for k in order), item[0])

  ordered = tuple(cell for _, cell in sorted(cells.items(), key=key))
  rest = tuple(c for _, c in sorted(((json.dumps(c), c) for c in unevaluated), key=key))
  runs = {run: runs[run] for run in dict.fromkeys([*(c['run'] for c in ordered), *sorted(runs)])}
  models = {run: runs_lib.trained(folder) for run, folder in runs.items()}
  return Results(
    runs, ordered, _short(columns), _metrics(ordered), tuple(notes), models, rest, workdir
  )


def _lines(path: Path) -> list[dict]:
  """The lines of a file; a run of version 1 becomes one of today's first."""
  lines = evals.read(path)
  if any(isinstance(line, dict) and 'version' not in line and 'T' in line for line in lines):
    upgrade(path.parent)
    return evals.read(path)
  return lines


def _cell(line: dict, run: str, axis: str) -> dict:
  if not (isinstance(line, dict) and isinstance(line.get('metrics'), dict)):
    raise ValueError('not a cell')
  if line.get('version') != VERSION:
    raise ValueError(f'version={line.get("version")!r} is not {VERSION}')
  settings = flat(line.get('settings', {}))
  if not (is_number(settings.get(axis)) and math.isfinite(settings[axis])):
    raise ValueError(f'{axis} is not a number')
  metrics = {k: float(v) for k, v in line['metrics'].items() if is_number(v)}
  rest = {k: v for k, v in line.items() if k not in ('version', 'settings')}
  found = {'metrics': metrics, 'errors': _errors(line, metrics), 'deviations': _deviations(line)}
  return settings | rest | {'run': run} | found


def _errors(line: dict, metrics: dict[str, float]) -> dict[str, float]:
  """The standard errors of a line; where it has none, that of IS by the spread over its parts."""
  found = line.get('errors')
  if isinstance(found, dict):
    return {k: float(v) for k, v in found.items() if is_number(v)}
  given = line.get('metric_settings')
  parts = given.get('is_splits', 10) if isinstance(given, dict) else 10
  if 'IS_std' in metrics and is_number(parts) and parts > 1:
    return {'IS': metrics['IS_std'] / math.sqrt(parts - 1)}
  return {}


def _deviations(line: dict) -> dict[str, list[float]]:
  """The deviations of a line, but for what is none."""
  found = line.get('deviations')
  if not isinstance(found, dict):
    return {}
  return {k: v for k, v in found.items() if isinstance(v, list) and v and all(map(is_number, v))}


def _order(value: object) -> tuple:
  return (0, value, '') if is_number(value) else (1, 0, str(value))


def _columns(cells: Iterable[dict], axis: str) -> list[str]:
  """Fields in the order of columns: the run, the axis, settings, measure, other provenance.

  Of the settings numbers come first; those of the method, the sampler and guidance in turn.
  """
  known = {k for c in cells for k in c} - {*_APART, axis}
  sections = ('method.', 'sample.sampler.', 'sample.guidance.', 'sample.', '')

  def place(k: str) -> tuple:
    numbers = all(is_number(c[k]) for c in cells if k in c)
    return not numbers, next(i for i, s in enumerate(sections) if k.startswith(s)), k

  settings = sorted(filter(is_setting, known), key=place)
  numbers = [k for k in settings if not place(k)[0]]
  ours = ['run', axis, *numbers, 'step', 'seed', *(k for k in settings if k not in numbers)]
  ours += [*MEASURE, 'samples']
  return [k for k in ours if k in known or k in ('run', axis)] + sorted(known - {*ours})


def _short(fields: Sequence[str]) -> dict[str, str]:
  """The last part of each dotted name, or as many parts as it takes to tell it from the others."""
  parts = {k: k.removesuffix('.name').split('.') for k in fields}

  def label(words: list[str]) -> str:
    for n in range(1, len(words)):
      if sum(p[-n:] == words[-n:] for p in parts.values()) == 1:
        return '.'.join(words[-n:])
    return '.'.join(words)

  return {k: label(words) for k, words in parts.items()}


def _metrics(cells: Sequence[dict]) -> dict[str, Metric | None]:
  """Every metric of the cells by the name it has there, in order; None for one that is not ours."""
  known = {}  # name → its place, and the metric
  for c in cells:
    names = by_name(str(c.get('extractor')))
    if 'distance' in c:
      names[c['distance']] = names['FD']
    spreads = {m.spread: m for m in names.values() if m.spread}
    order = list(dict.fromkeys(names.values()))
    for k in c['metrics']:
      metric = names.get(k)
      place = order.index(metric or spreads[k]) if metric or k in spreads else len(order)
      known[k] = (place, k in spreads, k), metric
  return {k: metric for k, (_, metric) in sorted(known.items(), key=lambda item: item[1][0])}


def format_value(value: object) -> str:
  """A setting or a metric as a reader wants it: four digits of a float, nothing for None."""
  if value is None:
    return ''
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, float):
    return f'{value:.4g}' if math.isfinite(value) else ''
  return str(value) if isinstance(value, str | int) else json.dumps(value, sort_keys=True)


def varying(settings: Sequence[dict], fields: Iterable[str]) -> list[str]:
  """The fields whose value is not the same in all of `settings`."""
  return [k for k in fields if len({json.dumps(s.get(k)) for s in settings}) > 1]


def telling(settings: Sequence[dict], fields: Iterable[str]) -> list[str]:
  """The fields with several values among those of `settings` that have one.

  A knob that one sampler alone has, and always with the same value, tells nothing: its name does.
  """
  return [
    k for k in fields if len({json.dumps(s[k]) for s in settings if s.get(k) is not None}) > 1
  ]


def sampler_text(settings: dict) -> str:
  """The sampler of settings in words: solver, grid and steps; empty where there is none."""
  name, grid, num_steps = (settings.get(k) for k in _SAMPLER)
  on = f' on {grid} grid' if grid else ''
  steps = f', {format_value(num_steps)} steps' if num_steps else ''
  return f'{name}{on}{steps}' if name else ''


def names(settings: Sequence[dict], fields: dict[str, str]) -> list[str]:
  """A name for each: what sets it apart, by short names; its run only where that is needed."""
  if len(settings) == 1:
    return [settings[0].get('run') or 'all runs']
  others = [k for k in fields if k != 'run']
  for apart in (telling(settings, others), varying(settings, others)):
    plain = [_name(s, apart, fields) for s in settings]
    if len(set(plain)) == len(plain):
      return plain
  return [', '.join(filter(None, (s.get('run'), name))) for s, name in zip(settings, plain)]


def _name(settings: dict, apart: Sequence[str], fields: dict[str, str]) -> str:
  """The values of some fields in words; of solvers or grids, with all of the sampler."""
  apart, parts = list(apart), []
  if {*_SAMPLER[:2]} & {*apart}:
    apart = [k for k in apart if k not in _SAMPLER]
    parts = [sampler_text(settings)]
  of_method = [k for k in apart if k.startswith('method.')]

  def told(k: str) -> str:
    text = format_value(settings.get(k))
    return f'{fields[k]} = {text[:8] if len(text) == 64 else text}'  # a sha256

  first, rest = of_method, [k for k in apart if k not in of_method]
  there = [[told(k) for k in ks if settings.get(k) is not None] for ks in (first, rest)]
  return ', '.join([*there[0], *filter(None, parts), *there[1]])
