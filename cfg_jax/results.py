"""What a work directory holds: evaluated cells, curves over w, and pictures drawn from one noise.

Reads the files that `evaluate` and `generate` wrote, and nothing else:
`<workdir>/<run>/evals.jsonl`, `<run>/config.json` and `<run>/<samples>/*.npz`.
"""

import json
import math
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

# A cell's fields, in the order in which tables show them. Whatever else a line holds is provenance.
SAMPLER = ('run', 'p_uncond', 'T', 'v', 'step', 'ema', 'clip_x', 'seed', 'labels')
MEASURE = (
  *('n', 'dataset', 'extractor', 'reference', 'reference_n'),
  *('extractor_sha256', 'reference_sha256'),
)


class Results(NamedTuple):
  """Every cell of a work directory, one dict each, and notes on what could not be read."""

  runs: dict[str, Path]
  cells: tuple[dict, ...]
  notes: tuple[str, ...]


class Curve(NamedTuple):
  """Cells that differ in w alone, in order of w; nan where a metric is missing."""

  name: str
  settings: dict
  distance: str
  cells: tuple[dict, ...]
  w: np.ndarray
  fd: np.ndarray
  inception_score: np.ndarray


class Pictures(NamedTuple):
  """Samples from the same noises under each w: (rows, w, H, W, C) uint8, `labels` (rows,)."""

  name: str
  settings: dict
  w: tuple[float, ...]
  indices: np.ndarray
  labels: np.ndarray
  images: np.ndarray


def is_number(value: object) -> bool:
  """True for ints and floats, false for bools and all else."""
  return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: object) -> tuple:
  return (0, value, '') if is_number(value) else (1, 0, str(value))


def _parse(line: str, run: str) -> dict:
  cell = json.loads(line)
  if not (isinstance(cell, dict) and isinstance(cell.get('metrics'), dict)):
    raise ValueError('not a cell')
  if not (is_number(cell.get('w')) and math.isfinite(cell['w'])):
    raise ValueError('w is not a number')
  metrics = {k: float(v) for k, v in cell['metrics'].items() if is_number(v)}
  return cell | {'run': run, 'metrics': metrics}


def read(workdir: Path) -> Results:
  """All cells of `<workdir>/*/evals.jsonl`, or of `<workdir>/evals.jsonl` if it is one run itself.

  The folder names the run. Of lines that differ in metrics alone the last counts. A line that is
  not a cell (a process was killed as it wrote) is left out and named in `notes`.

  Raises:
    ValueError: there is no cell at all.
  """
  cells, runs, notes = {}, {}, []
  for path in (workdir / 'evals.jsonl', *sorted(workdir.glob('*/evals.jsonl'))):
    text = path.read_text(encoding='utf-8', errors='replace') if path.is_file() else ''
    for number, line in enumerate(text.split('\n'), start=1):
      if not line.strip():
        continue
      try:
        cell = _parse(line, path.parent.resolve().name)
        runs[cell['run']] = path.parent
      except ValueError as error:
        notes.append(f'{path.relative_to(workdir)}, line {number}: left out, {error}.')
        continue
      identity = {k: v for k, v in cell.items() if k != 'metrics'}
      cells[json.dumps(identity, sort_keys=True)] = cell
  if not cells:
    raise ValueError(
      f'workdir={str(workdir)!r} holds no evaluated cell (<run>/evals.jsonl); '
      'run experiments.sweep or cfg_jax.evaluation.evaluate first.'
    )

  def order(item: tuple[str, dict]) -> tuple:
    fields = ('p_uncond', *SAMPLER, 'w', *MEASURE)
    return (*(_order(item[1].get(k)) for k in fields), item[0])

  ordered = tuple(c for _, c in sorted(cells.items(), key=order))
  runs = {run: runs[run] for run in dict.fromkeys(c['run'] for c in ordered)}
  return Results(runs, ordered, tuple(notes))


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


def names(settings: Sequence[dict], fields: Sequence[str]) -> list[str]:
  """A short name for each: what sets it apart; with the run's name only where that is needed."""
  if len(settings) == 1:
    return [settings[0]['run']]
  apart = varying(settings, [k for k in fields if k != 'run'])

  def short(value: object) -> str:
    text = format_value(value)
    return text[:8] if len(text) == 64 else text  # a sha256

  plain = [', '.join(f'{k} = {short(s.get(k))}' for k in apart) for s in settings]
  if len(set(plain)) == len(plain):
    return plain
  return [', '.join(filter(None, (s['run'], name))) for s, name in zip(settings, plain)]


def distance_name(cell: dict) -> str | None:
  """The Fréchet distance a cell holds: FID of 50 000, FID, or FD of another extractor."""
  known = [k for k in cell['metrics'] if k in ('FID-50k', 'FID') or k.startswith('FD')]
  return min(known, key=lambda k: (k != 'FID-50k', k != 'FID', k), default=None)


def curves(cells: Sequence[dict]) -> list[Curve]:
  """One curve for each setting of everything but w, in the order of `cells`."""
  fields = SAMPLER + MEASURE
  groups: dict[str, list[dict]] = {}
  for cell in cells:
    groups.setdefault(json.dumps([cell.get(k) for k in fields]), []).append(cell)
  settings = [{k: group[0].get(k) for k in fields} for group in groups.values()]
  out = []
  for name, setting, group in zip(names(settings, fields), settings, groups.values()):
    by_w = {c['w']: c for c in group}
    row = tuple(by_w[w] for w in sorted(by_w))
    distance = next(filter(None, map(distance_name, row)), 'FD')

    def column(key: str, row: tuple[dict, ...] = row) -> np.ndarray:
      return np.array([c['metrics'].get(key, math.nan) for c in row], np.float64)

    w = np.array([c['w'] for c in row], np.float64)
    out.append(Curve(name, setting, distance, row, w, column(distance), column('IS')))
  return out


def _shards(folder: Path) -> dict[int, tuple[Path, int, int]]:
  """Sample index → its shard, its row there and its label. Reads no image."""
  found = {}
  for path in sorted(folder.glob('*.npz')):
    with np.load(path, allow_pickle=False) as shard:
      for row, (i, label) in enumerate(zip(shard['indices'], shard['labels'])):
        found[int(i)] = (path, row, int(label))
  return found


def _choose(labels: dict[int, int], num_classes: int, per_class: int) -> list[int]:
  """The first `per_class` indices of up to `num_classes` evenly spaced classes, class by class."""
  of_class: dict[int, list[int]] = {}
  for i in sorted(labels):
    of_class.setdefault(labels[i], []).append(i)
  classes = sorted(of_class)
  count = min(num_classes, len(classes))
  kept = [classes[j * len(classes) // count] for j in range(count)]
  return [i for c in kept for i in of_class[c][:per_class]]


def _thin(values: list[float], count: int) -> list[float]:
  """At most `count` of the values, evenly spaced, both ends kept."""
  if len(values) <= count:
    return values
  return [values[round(j * (len(values) - 1) / (count - 1))] for j in range(count)]


def _read_images(shards: list[dict[int, tuple[Path, int, int]]], rows: list[int]) -> np.ndarray:
  out = []
  for found in shards:
    images = {}
    for path in {found[i][0] for i in rows}:
      with np.load(path, allow_pickle=False) as shard:
        images[path] = shard['images']
    out.append([images[found[i][0]][found[i][1]] for i in rows])
  return np.swapaxes(np.array(out, np.uint8), 0, 1)


# (noises per class, classes, values of w), the richest first: the first within the budget is taken.
_PLANS = ((8, 10, 99), (4, 10, 99), (2, 10, 99), (1, 10, 99), (1, 10, 11), (1, 5, 11), (1, 5, 5))


def pictures(results: Results, max_bytes: int) -> tuple[list[Pictures], list[str]]:
  """Pictures of every sampler setting that has samples on disk, and notes on what is not shown.

  All settings share `max_bytes` of raw pixels: noises per class are dropped first, then values of
  w, then classes, then whole settings from the end.
  """
  notes, groups = [], {}
  for cell in results.cells:
    run = results.runs[cell['run']].resolve()
    folder = (run / str(cell.get('samples', '.'))).resolve()
    if folder != run and folder.is_relative_to(run) and any(folder.glob('*.npz')):
      key = json.dumps([cell.get(k) for k in SAMPLER])
      groups.setdefault(key, ({k: cell.get(k) for k in SAMPLER}, {}))[1][cell['w']] = folder
  found = []
  for settings, folders in groups.values():
    try:
      shards = {w: _shards(folders[w]) for w in sorted(folders)}
      common = set.intersection(*(set(s) for s in shards.values()))
      if common:
        first = next(iter(shards.values()))
        shape = _read_images([first], [min(common)]).shape[2:]
        found.append((settings, shards, {i: first[i][2] for i in common}, math.prod(shape)))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
      notes.append(f'{settings["run"]}: samples left out, {error}.')

  def cost(per_class: int, num_classes: int, num_w: int) -> list[int]:
    return [
      len(_choose(labels, num_classes, per_class)) * min(num_w, len(shards)) * pixels
      for _, shards, labels, pixels in found
    ]

  plan = next((p for p in _PLANS if sum(cost(*p)) <= max_bytes), _PLANS[-1])
  while found and sum(cost(*plan)) > max_bytes:
    notes.append(f'Samples of {found.pop()[0]["run"]} are not shown, to keep the page light.')
  per_class, num_classes, num_w = plan
  out = []
  for name, (settings, shards, labels, _) in zip(
    names([f[0] for f in found], SAMPLER) if found else [], found
  ):
    rows, ws = _choose(labels, num_classes, per_class), _thin(list(shards), num_w)
    if len(ws) < len(shards):
      notes.append(f'{name}: pictures of {len(ws)} of {len(shards)} values of w are shown.')
    images = _read_images([shards[w] for w in ws], rows)
    chosen = np.array([labels[i] for i in rows])
    out.append(Pictures(name, settings, tuple(ws), np.array(rows), chosen, images))
  return out, notes
