"""Curves and charts of the page: of metrics, beside the paper, for cost, and of training."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from cfg_jax.report import cells as cells_lib
from cfg_jax.report import charts, cost, scores, svg
from cfg_jax.report.cells import Results, format_value
from cfg_jax.report.charts import Frame, Line
from cfg_jax.report.curves import Curve, curves
from cfg_jax.report.runs import Training
from cfg_jax.report.study import Published, Study
from cfg_jax.report.told import told

MOST_ON = 8  # curves that are not switched off at first: as many as there are colours
MOST_POINTS = 60  # of a curve of training


def dataset_of(settings: dict) -> str:
  """The data set of a cell or curve, for a reader."""
  return format_value(settings.get('dataset')) or 'unnamed data'


def of_results(results: Results, study: Study, floors: Sequence[dict]) -> tuple[list[dict], int]:
  """Curves of one data set and one distance share axes, findings and what the paper prints.

  floors: what real images score. Returns the panels, and how many lines they have.
  """
  groups: dict[tuple, list[Curve]] = {}
  for c in curves(results, study.axis):
    groups.setdefault((dataset_of(c.settings), c.distance), []).append(c)
  panels, count, axis = [], 0, results.fields[study.axis]
  for (dataset, distance), ours in groups.items():
    published = study.beside(dataset, distance)
    reals = [f for f in floors if _is_floor(f, ours, distance)]
    lines = charts.lines_of(ours, published, axis)
    lines += [_floor_line(f, ours, distance, axis) for f in reals]
    frames = charts.frames(distance, axis, study.scale)
    cells = [
      c
      for c in results.cells
      if dataset_of(c) == dataset and (c.get('distance') or 'FD') == distance
    ]
    on = _on(ours)
    first, count = count, count + len(lines)
    by_cost, count = _cost(results, study.axis, cells, distance, count)
    panels.append(
      {
        'dataset': dataset,
        'distance': distance,
        'findings': study.findings(ours),
        'about': _about(ours),
        'charts': _drawn(lines, frames, first, min(on)),
        'legend': [
          (first + j, Markup(svg.key(x)), x.name, j not in on and j < len(ours))
          for j, x in enumerate(lines)
        ],
        'off': len(ours) - len(on),
        'floors': [_floor_text(f, distance) for f in reals],
        'cost': by_cost,
        'beside': beside(ours, published, results.fields),
      }
    )
  return panels, count


def _drawn(
  lines: Sequence[Line], frames: Sequence[Frame], first: int, named: int = 0
) -> list[tuple[str, Markup]]:
  drawn = [(frame, svg.svg(lines, frame, first, named)) for frame in frames]
  ring = '; a ring is round the least of each curve'
  return [(f.title + (ring if f.least else ''), Markup(chart)) for f, chart in drawn if chart]


def _on(ours: Sequence[Curve]) -> set[int]:
  """The curves that are shown at first: of many, those with the least distance."""
  order = sorted(
    range(len(ours)),
    key=lambda j: np.nanmin(ours[j].values(ours[j].distance), initial=math.inf),
  )
  return set(order[:MOST_ON])


def _about(ours: Sequence[Curve]) -> str:
  """How many samples and seeds a point has, and which sampler, where it is one for all."""
  numbers = sorted({n for c in ours if cells_lib.is_number(n := c.settings.get('n'))})
  said = [f'n = {" or ".join(map(str, numbers))} samples a point']
  seeds = sorted({len(c.members) or 1 for c in ours})
  said.append(f'{" or ".join(map(str, seeds))} {"seed" if seeds == [1] else "seeds"}')
  samplers = {cells_lib.sampler_text(c.settings) for c in ours}
  if len(samplers) == 1:
    said += filter(None, samplers)
  else:
    said.append(f'{len(samplers)} samplers, named with the curves')
  known = any(c.errors for c in ours)
  bars = 'bars and bands are one standard error' if known else 'no errors are recorded'
  return f'{", ".join(said if numbers else said[1:])}; {bars}.'


def _is_floor(floor: dict, ours: Sequence[Curve], distance: str) -> bool:
  """Whether real images were measured as these curves were, and as many."""
  settings = [c.settings for c in ours]
  same = ('dataset', 'extractor_sha256', 'reference_sha256', 'metric_settings')
  alike = [s for s in settings if all(floor.get(k) == s.get(k) for k in same)]
  return any(floor['n'] == min(s.get('n') or 0, floor['of']) for s in alike) and (
    floor['distance'] == distance
  )


def _floor_line(floor: dict, ours: Sequence[Curve], distance: str, axis: str) -> Line:
  x = np.concatenate([c.x for c in ours])
  ends = np.array([x.min(), x.max()])
  values = {k: np.full(2, v) for k, v in floor['metrics'].items()}
  name = f'{floor["n"]} real images'
  return Line(name, {axis: ends} | values, None, dashed=True, level=True)


def _floor_text(floor: dict, distance: str) -> str:
  """What real images score, and how they were drawn."""
  said = [
    f'{k} {told(floor["metrics"][k], floor["errors"].get(k, math.nan))}'
    for k in (distance, 'IS')
    if k in floor['metrics']
  ]
  return (
    f'Real images, {floor["n"]} of the {floor["of"]} of training, drawn without replacement '
    f'(seed {floor["seed"]}): {", ".join(said)}. The reference has them too.'
  )


def _cost(
  results: Results, axis: str, cells: Sequence[dict], distance: str, count: int
) -> tuple[dict | None, int]:
  """Charts over network calls, for each value of the axis; None where the sampler is one."""
  if not cost.varies(cells):
    return None, count
  found = cost.panels(results, axis, cells, distance)
  shown = []
  for panel in found:
    legend = [(count + j, Markup(svg.key(x)), x.name, False) for j, x in enumerate(panel.lines)]
    drawn = _drawn(panel.lines, panel.frames, count)
    shown.append({'x': f'{panel.x:g}', 'legend': legend, 'charts': drawn})
    count += len(panel.lines)
  return {'panels': shown, 'best': cost.best(found, distance)}, count


def of_training(
  logs: Sequence[Training], first: int, by_quarter: bool = False
) -> tuple[dict | None, int]:
  """Curves of training; None where nothing was logged.

  by_quarter: of the loss in each quarter of λ too, where that was logged.
  """
  lines = []
  for j, log in enumerate(logs):
    parts = np.array_split(np.arange(len(log.steps)), min(MOST_POINTS, len(log.steps)))
    values = {'step': np.array([log.steps[p[-1]] for p in parts])}
    values |= {k: np.array([_mean(v[p]) for p in parts]) for k, v in log.values.items()}
    lines.append(Line(log.run, values, j))
  names = {'loss': 'loss', 'grad_norm': "the gradient's norm", 'images_per_s': 'images/s'}
  if by_quarter:
    names |= {f'loss_quarter_{k}': scores.name_of(f'loss_quarter_{k}') for k in (1, 2, 3, 4)}
  lines = [x._replace(values={names.get(k, k): v for k, v in x.values.items()}) for x in lines]
  losses = [name for k, name in names.items() if k.startswith('loss')]
  frames = [Frame('step', name, 'step', logs=tuple(losses)) for name in names.values()]
  drawn = _drawn(lines, frames, first)
  if not drawn:
    return None, first
  legend = [(first + j, Markup(svg.key(x)), x.name, False) for j, x in enumerate(lines)]
  return {'charts': drawn, 'legend': legend}, first + len(lines)


def _mean(values: np.ndarray) -> float:
  known = values[np.isfinite(values)]
  return float(known.mean()) if len(known) else math.nan


def beside(ours: Sequence[Curve], published: Sequence[Published], fields: dict) -> list[dict]:
  """A table for each of our curves that has the settings of a column of the paper's, at equal x."""
  tables = []
  for c in ours:
    for p in published:
      if not p.settings or not p.settings.items() <= c.settings.items():
        continue
      names = [k for k in p.metrics if k in c.metrics]
      rows = []
      for i, x in enumerate(c.x):
        if (x := round(x, 6)) in p.x:
          pairs = [(c.metrics[k][i], p.metrics[k][p.x.index(x)]) for k in names]
          rows.append((x, [v for mine, theirs in pairs for v in (mine, theirs, mine - theirs)]))
      if rows:
        column = ' and '.join(fields[k] for k in p.column)
        tables.append(
          {'table': p.table, 'column': column, 'name': c.name, 'metrics': names, 'rows': rows}
        )
  return tables
