"""Cells → curves: what metrics do as one setting changes and nothing else does."""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cfg_jax.report import cells as cells_lib
from cfg_jax.report.cells import SEEDS, Results


class Curve(NamedTuple):
  """Cells that differ in the study's axis alone, in its order; of several seeds, their mean.

  settings: what they have in common, by dotted names. distance: the name of the Fréchet distance
  among their metrics. x: values on the axis, (N,). metrics: by name, (N,), nan where one is
  missing. errors: the standard error of each, (N,). deviations: what R redrawn sets would move some
  of them by, (R, N), see `evaluate.errors`. members: of a mean, a curve for each seed.
  """

  name: str
  settings: dict
  distance: str
  x: np.ndarray
  metrics: dict[str, np.ndarray]
  errors: dict[str, np.ndarray] = {}
  deviations: dict[str, np.ndarray] = {}
  members: tuple['Curve', ...] = ()

  def values(self, metric: str) -> np.ndarray:
    """A metric at each x; nan everywhere if the curve does not have it at all."""
    return self.metrics.get(metric, np.full(len(self.x), math.nan))

  def error(self, metric: str) -> np.ndarray:
    """The standard error of a metric at each x; nan where it is not known."""
    return self.errors.get(metric, np.full(len(self.x), math.nan))


def curves(results: Results, axis: str, cells: Sequence[dict] | None = None) -> list[Curve]:
  """One curve for each setting of everything but the axis and seeds, in the order of the cells.

  cells: by default all of the results.
  """
  cells = results.cells if cells is None else cells
  fields = [k for k in results.fields if k not in (axis, 'samples')]
  groups: dict[str, dict[float, dict]] = {}
  for cell in cells:
    key = json.dumps([cell.get('distance'), *(cell.get(k) for k in fields)])
    groups.setdefault(key, {})[cell[axis]] = cell
  rows = [[group[x] for x in sorted(group)] for group in groups.values()]
  out = _over_seeds([_of_row(row, fields, axis, results) for row in rows], results)
  short = {k: results.fields[k] for k in fields}
  names = cells_lib.names([c.settings for c in out], short) if out else []
  return [
    c._replace(name=f'{name} (mean of {len(c.members)} seeds)' if c.members else name)
    for name, c in zip(names, out)
  ]


def _of_row(row: list[dict], fields: list[str], axis: str, results: Results) -> Curve:
  """The curve of the cells of one run."""

  def values(part: str) -> dict[str, np.ndarray]:
    return {
      k: np.array([c[part].get(k, math.nan) for c in row], np.float64)
      for k in results.metrics
      if any(k in c[part] for c in row)
    }

  deviations = {
    k: np.array([c['deviations'][k] for c in row]).T
    for k in row[0]['deviations']
    if len({len(c['deviations'].get(k, ())) for c in row}) == 1
  }
  settings = {k: row[0].get(k) for k in fields}
  x = np.array([c[axis] for c in row], np.float64)
  distance = row[0].get('distance') or 'FD'
  return Curve('', settings, distance, x, values('metrics'), values('errors'), deviations)


def _over_seeds(found: list[Curve], results: Results) -> list[Curve]:
  """Curves of models that differ in nothing but seeds become their mean."""
  groups: dict[str, list[Curve]] = {}
  for c in found:
    kept = {k: v for k, v in c.settings.items() if k not in ('run', *SEEDS)}
    key = json.dumps([c.distance, results.models.get(c.settings.get('run')), kept])
    groups.setdefault(key, []).append(c)
  out = []
  for group in groups.values():
    seeds = {tuple(c.settings.get(k) for k in SEEDS) for c in group}
    # The same seed twice: what tells the runs apart is not known here.
    out += [_mean(group)] if 1 < len(group) == len(seeds) and _common(group).size else group
  return out


def _common(group: Sequence[Curve]) -> np.ndarray:
  """The values on the axis that all have."""
  return np.array(sorted(set.intersection(*(set(c.x.tolist()) for c in group))), np.float64)


def _mean(group: list[Curve]) -> Curve:
  """The mean of curves, over seeds of training where there are several, else of sampling."""
  x = _common(group)
  group = [_at(c, x) for c in group]
  trained: dict[object, list[Curve]] = {}
  for c in group:
    trained.setdefault(c.settings.get(SEEDS[0]), []).append(c)
  units = [_average(cs) for cs in trained.values()] if len(trained) > 1 else group
  whole = _average(units)
  errors = {}
  for k in whole.metrics:
    spread = np.std([u.values(k) for u in units], axis=0, ddof=1) / math.sqrt(len(units))
    # Seeds that agree by chance say no more than their samples do.
    errors[k] = np.fmax(spread, whole.error(k))
  first = group[0].settings
  same = {k: v for k, v in first.items() if all(c.settings[k] == v for c in group)}
  settings = dict.fromkeys(first) | same
  return whole._replace(settings=settings, errors=errors, members=tuple(units))


def _at(curve: Curve, x: np.ndarray) -> Curve:
  """The curve at some of its values on the axis."""
  keep = np.searchsorted(curve.x, x)
  metrics, errors = (
    {k: v[keep] for k, v in part.items()} for part in (curve.metrics, curve.errors)
  )
  deviations = {k: v[:, keep] for k, v in curve.deviations.items()}
  return curve._replace(x=x, metrics=metrics, errors=errors, deviations=deviations)


def _average(curves: Sequence[Curve]) -> Curve:
  """The mean of curves at the same x, with the error that their samples leave it."""
  first = curves[0]
  metrics = {k: np.mean([c.values(k) for c in curves], axis=0) for k in first.metrics}
  errors = {
    k: np.sqrt(np.sum(np.square([c.error(k) for c in curves]), axis=0)) / len(curves)
    for k in first.errors
  }
  deviations = {
    k: np.mean([c.deviations[k] for c in curves], axis=0)
    for k in first.deviations
    if len({c.deviations[k].shape if k in c.deviations else () for c in curves}) == 1
  }
  errors |= {k: np.sqrt(np.mean(v**2, axis=0)) for k, v in deviations.items() if k in metrics}
  return first._replace(metrics=metrics, errors=errors, deviations=deviations)
