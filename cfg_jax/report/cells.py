"""What a work directory holds: evaluated cells, curves over w, and pictures drawn from one noise.

Reads the files that `evaluate` and `generate` wrote, and nothing else:
`<workdir>/<run>/evals.jsonl`, `<run>/config.json` and `<run>/<samples>/*.npz`.
"""

import functools
import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

# What a file that is damaged, or is none of ours, raises on reading.
_UNREADABLE = (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile, zlib.error)

# A cell's fields, in the order in which tables show them. Whatever else a line holds is provenance.
SAMPLER = ('run', 'p_uncond', 'T', 'v', 'step', 'ema', 'clip_x', 'seed', 'labels')
MEASURE = (
  *('n', 'dataset', 'extractor', 'resize', 'reference', 'reference_n'),
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
      except (ValueError, OverflowError) as error:
        notes.append(f'{path.relative_to(workdir)}, line {number}: left out, {error}.')
        continue
      identity = {k: v for k, v in cell.items() if k != 'metrics'}
      cells[json.dumps(identity, sort_keys=True)] = cell
  if not cells:
    raise ValueError(
      f'workdir={str(workdir)!r} holds no evaluated cell (<run>/evals.jsonl); '
      'run cfg_jax.sweep or cfg_jax.evaluate first.'
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


class _Shard(NamedTuple):
  """One file of samples, its images unread."""

  path: Path
  indices: np.ndarray
  labels: np.ndarray


def _shards(folder: Path) -> list[_Shard]:
  found = []
  for path in sorted(folder.glob('*.npz')):
    with np.load(path, allow_pickle=False) as shard:
      found.append(_Shard(path, shard['indices'], shard['labels']))
  return found


def _common(by_w: Sequence[list[_Shard]]) -> tuple[np.ndarray, np.ndarray]:
  """Sample indices that every w has, ascending, and their labels."""
  indices = [np.concatenate([s.indices for s in shards]) for shards in by_w]
  labels = np.concatenate([s.labels for s in by_w[0]])
  common = functools.reduce(np.intersect1d, indices[1:], np.unique(indices[0]))
  order = np.argsort(indices[0])
  return common, labels[order[np.searchsorted(indices[0][order], common)]]


def _choose(labels: np.ndarray, num_classes: int, per_class: int) -> list[int]:
  """Positions of the first `per_class` of up to `num_classes` evenly spaced classes."""
  classes = np.unique(labels)
  count = min(num_classes, len(classes))
  kept = [classes[j * len(classes) // count] for j in range(count)]
  return [int(i) for c in kept for i in np.flatnonzero(labels == c)[:per_class]]


def _thin(values: list[float], count: int) -> list[float]:
  """At most `count` of the values, both ends kept, denser at the low end, where w matters most."""
  if len(values) <= count:
    return values
  places = (np.linspace(0, 1, count) ** 1.5 * (len(values) - 1)).round().astype(int)
  return [values[j] for j in np.unique(places)]


def _read_images(by_w: Sequence[list[_Shard]], indices: np.ndarray) -> np.ndarray:
  """Images of the given samples, (samples, w, H, W, C) uint8. Opens only the shards they are in."""
  out = []
  for shards in by_w:
    images = {}
    for s in shards:
      rows = np.flatnonzero(np.isin(s.indices, indices))
      if len(rows):
        with np.load(s.path, allow_pickle=False) as shard:
          images |= zip(s.indices[rows].tolist(), shard['images'][rows])
    out.append([images[i] for i in indices.tolist()])
  stacked = np.array(out).swapaxes(0, 1)
  if stacked.ndim != 5 or stacked.dtype != np.uint8 or stacked.shape[-1] not in (1, 3):
    raise ValueError(
      f'images are {stacked.dtype} of shape {stacked.shape[2:]}, not uint8 (H, W, C)'
    )
  return stacked


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
      by_w = {w: _shards(folders[w]) for w in sorted(folders)}
      indices, labels = _common(list(by_w.values()))
      if len(indices):
        pixels = _read_images([next(iter(by_w.values()))], indices[:1]).size
        found.append((settings, by_w, indices, labels, pixels))
    except _UNREADABLE as error:
      notes.append(f'{settings["run"]}: samples left out, {error}.')

  def cost(per_class: int, num_classes: int, num_w: int) -> int:
    return sum(
      len(_choose(labels, num_classes, per_class)) * min(num_w, len(by_w)) * pixels
      for _, by_w, _, labels, pixels in found
    )

  plan = next((p for p in _PLANS if cost(*p) <= max_bytes), _PLANS[-1])
  while found and cost(*plan) > max_bytes:
    notes.append(f'Samples of {found.pop()[0]["run"]} are not shown, to keep the page light.')
  per_class, num_classes, num_w = plan
  out = []
  for name, (settings, by_w, indices, labels, _) in zip(
    names([f[0] for f in found], SAMPLER) if found else [], found
  ):
    chosen, ws = _choose(labels, num_classes, per_class), _thin(list(by_w), num_w)
    if len(ws) < len(by_w):
      notes.append(f'{len(ws)} of {len(by_w)} values of w are shown, to keep the page light.')
    try:
      images = _read_images([by_w[w] for w in ws], indices[chosen])
    except _UNREADABLE as error:
      notes.append(f'{name}: samples left out, {error}.')
      continue
    out.append(Pictures(name, settings, tuple(ws), indices[chosen], labels[chosen], images))
  return out, list(dict.fromkeys(notes))
