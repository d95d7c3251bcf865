"""Samples on disk → the page's pictures: one noise under every value of the study's axis."""

import base64
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cfg_jax.core import pictures
from cfg_jax.core.errors import UserError
from cfg_jax.data.names import named
from cfg_jax.generate import store
from cfg_jax.report import cells as cells_lib
from cfg_jax.report.cells import SAMPLES, Results, format_value, is_setting

# (noises per class, classes, values on the axis), the richest first: the first within the budget is
# taken.
_PLANS = ((8, 10, 99), (4, 10, 99), (2, 10, 99), (1, 10, 99), (1, 10, 11), (1, 5, 11), (1, 5, 5))


class Pictures(NamedTuple):
  """Samples from the same noises at each x: (rows, x, H, W, C) uint8, `labels` (rows,)."""

  name: str
  settings: dict
  x: tuple[float, ...]
  indices: np.ndarray
  labels: np.ndarray
  images: np.ndarray


class _Set(NamedTuple):
  """What there is of one setting: the folder of each x, and the samples that all folders have."""

  settings: dict
  folders: dict[float, Path]
  indices: np.ndarray
  labels: np.ndarray
  pixels: int  # of one image, in bytes


def settings_of(cell: dict, axis: str) -> dict:
  """What, beside the axis, decides how the samples of a cell look."""
  return {k: v for k, v in cell.items() if (k in SAMPLES or is_setting(k)) and k != axis}


def choose(results: Results, axis: str, max_bytes: int) -> tuple[list[Pictures], list[str]]:
  """Pictures of every setting that has samples on disk, and notes on what is not shown.

  All settings share `max_bytes` of raw pixels: noises per class are dropped first, then values on
  the axis, then classes, then whole settings from the end.
  """
  found, notes = _on_disk(results, axis)
  axis_name = results.fields[axis]

  def cost(per_class: int, num_classes: int, num_x: int) -> int:
    return sum(
      len(_rows(s.labels, num_classes, per_class)) * min(num_x, len(s.folders)) * s.pixels
      for s in found
    )

  plan = next((p for p in _PLANS if cost(*p) <= max_bytes), _PLANS[-1])
  while found and cost(*plan) > max_bytes:
    run = found.pop().settings['run']
    notes.append(f'Samples of {run} are not shown, to keep the page light.')
  per_class, num_classes, num_x = plan
  fields = {k: name for k, name in results.fields.items() if found and k in found[0].settings}
  out = []
  for name, s in zip(cells_lib.names([s.settings for s in found], fields) if found else [], found):
    rows, xs = _rows(s.labels, num_classes, per_class), _thin(list(s.folders), num_x)
    if len(xs) < len(s.folders):
      shown = f'{len(xs)} of {len(s.folders)} values of {axis_name}'
      notes.append(f'{shown} are shown, to keep the page light.')
    try:
      images = np.stack([store.pick(s.folders[x], s.indices[rows]) for x in xs], axis=1)
    except UserError as error:
      notes.append(f'{name}: samples left out, {error}')
      continue
    out.append(Pictures(name, s.settings, tuple(xs), s.indices[rows], s.labels[rows], images))
  return out, list(dict.fromkeys(notes))


def _on_disk(results: Results, axis: str) -> tuple[list[_Set], list[str]]:
  """Every setting that has samples, and notes on those that cannot be read."""
  groups: dict[str, tuple[dict, dict]] = {}
  for cell in (*results.cells, *results.unevaluated):
    run = results.runs[cell['run']].resolve()
    folder = (run / str(cell.get('samples', '.'))).resolve()
    if folder != run and folder.is_relative_to(run) and any(folder.glob('*.npz')):
      settings = settings_of(cell, axis)
      key = json.dumps(settings, sort_keys=True)
      groups.setdefault(key, (settings, {}))[1][cell[axis]] = folder
  found, notes = [], []
  for settings, folders in groups.values():
    folders = {x: folders[x] for x in sorted(folders)}
    try:
      known = [store.index(folder) for folder in folders.values()]
      common = functools.reduce(np.intersect1d, [indices for indices, _ in known])
      if len(common):
        indices, labels = known[0]
        labels = labels[np.searchsorted(indices, common)]
        pixels = store.pick(next(iter(folders.values())), common[:1]).size
        found.append(_Set(settings, folders, common, labels, pixels))
    except UserError as error:
      notes.append(f'{settings["run"]}: samples left out, {error}')
  return found, notes


def _rows(labels: np.ndarray, num_classes: int, per_class: int) -> list[int]:
  """Positions of the first `per_class` of up to `num_classes` evenly spaced classes."""
  classes = np.unique(labels)
  count = min(num_classes, len(classes))
  kept = [classes[j * len(classes) // count] for j in range(count)]
  return [int(i) for c in kept for i in np.flatnonzero(labels == c)[:per_class]]


def _thin(values: list[float], count: int) -> list[float]:
  """At most `count` of the values, both ends kept, denser at the low end."""
  if len(values) <= count:
    return values
  places = (np.linspace(0, 1, count) ** 1.5 * (len(values) - 1)).round().astype(int)
  return [values[j] for j in np.unique(places)]


def embed(shown: Pictures, fields: dict[str, str], names: list[str] | None = None) -> dict:
  """Sheets of one setting as data URIs: sheet k has each class's k-th noise, one a row.

  fields: the short names of settings; names: of classes, if they have any.
  """
  of_class = [np.flatnonzero(shown.labels == c) for c in np.unique(shown.labels)]
  noises = min(len(rows) for rows in of_class)
  height, width = shown.images.shape[2:4]
  gap = max(1, height // 16)
  sheets = [_sheet(shown.images[[rows[k] for rows in of_class]], gap) for k in range(noises)]
  return {
    'name': shown.name,
    'settings': {fields[k]: format_value(v) for k, v in shown.settings.items()},
    'x': [f'{x:g}' for x in shown.x],
    'classes': [named(int(c), names or []) for c in np.unique(shown.labels)],
    'indices': [[int(shown.indices[rows[k]]) for rows in of_class] for k in range(noises)],
    'pitch': (width + gap, height + gap),  # of a tile and the gap after it
    'gap': gap,
    'scale': _scale(width, len(shown.x)),
    'sheets': sheets,
  }


def of_real(told: dict, names: list[str] | None = None) -> dict:
  """A sheet of real images: rows are classes, along a row the first of those drawn."""
  labels = told['labels']
  of_class = [np.flatnonzero(labels == c) for c in np.unique(labels)]
  columns = min(len(rows) for rows in of_class)
  images = np.stack([told['images'][rows[:columns]] for rows in of_class])
  height, width = images.shape[2:4]
  gap = max(1, height // 16)
  return {
    'classes': [named(int(c), names or []) for c in np.unique(labels)],
    'x': [''] * columns,
    'pitch': (width + gap, height + gap),
    'gap': gap,
    'scale': _scale(width, columns),
    'sheets': [_sheet(images, gap)],
  }


def _scale(width: int, columns: int) -> float:
  """By how much a sheet of so many columns is enlarged."""
  return max(1, (44 if columns <= 12 else 28) // width) if width <= 96 else 96 / width


def _sheet(images: Sequence[np.ndarray], gap: int) -> str:
  png = pictures.png(pictures.tile(images, gap), optimize=True)
  return 'data:image/png;base64,' + base64.b64encode(png).decode()
