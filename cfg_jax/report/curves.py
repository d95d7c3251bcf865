"""Cells → curves: what metrics do as one setting changes and nothing else does."""

import json
import math
from typing import NamedTuple

import numpy as np

from cfg_jax.report import cells as cells_lib
from cfg_jax.report.cells import Results


class Curve(NamedTuple):
  """Cells that differ in the study's axis alone, in its order.

  settings: what they have in common, by dotted names. distance: the name of the Fréchet distance
  among their metrics. x: values on the axis, (N,). metrics: by name, (N,), nan where one is
  missing.
  """

  name: str
  settings: dict
  distance: str
  x: np.ndarray
  metrics: dict[str, np.ndarray]

  def values(self, metric: str) -> np.ndarray:
    """A metric at each x; nan everywhere if the curve does not have it at all."""
    return self.metrics.get(metric, np.full(len(self.x), math.nan))


def curves(results: Results, axis: str) -> list[Curve]:
  """One curve for each setting of everything but the axis, in the order of the cells."""
  fields = [k for k in results.fields if k not in (axis, 'samples')]
  groups: dict[str, dict[float, dict]] = {}
  for cell in results.cells:
    key = json.dumps([cell.get('distance'), *(cell.get(k) for k in fields)])
    groups.setdefault(key, {})[cell[axis]] = cell
  rows = [[group[x] for x in sorted(group)] for group in groups.values()]
  settings = [{k: row[0].get(k) for k in fields} for row in rows]
  names = cells_lib.names(settings, {k: results.fields[k] for k in fields}) if rows else []
  out = []
  for name, setting, row in zip(names, settings, rows):
    metrics = {
      k: np.array([c['metrics'].get(k, math.nan) for c in row], np.float64)
      for k in results.metrics
      if any(k in c['metrics'] for c in row)
    }
    x = np.array([c[axis] for c in row], np.float64)
    out.append(Curve(name, setting, row[0].get('distance') or 'FD', x, metrics))
  return out
