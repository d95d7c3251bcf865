"""Quality for cost: metrics over network calls an image, where a sweep varies the sampler."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.report.cells import Results, telling
from cfg_jax.report.charts import SHAPES, Frame, Line, style_of
from cfg_jax.report.curves import curves

STEPS = 'sample.sampler.num_steps'
CALLS, SECONDS = 'network calls an image', 'seconds an image'
MOST = 12  # values of the axis that the page has charts of


class Panel(NamedTuple):
  """The charts of one value on the study's axis: a line for each solver and grid."""

  x: float
  lines: list[Line]
  frames: list[Frame]


def varies(cells: Sequence[dict]) -> bool:
  """Whether cells differ in how they were sampled."""
  fields = {k for c in cells for k in c if k.startswith('sample.sampler.')}
  return bool(telling(cells, sorted(fields)))


def panels(results: Results, axis: str, cells: Sequence[dict], distance: str) -> list[Panel]:
  """A panel for each value of the axis at which several samplers were evaluated."""
  at: dict[float, list[dict]] = {}
  for cell in cells:
    at.setdefault(cell[axis], []).append(cell)
  chosen = [x for x in sorted(at) if varies(at[x])] or sorted(at)
  chosen = [chosen[j] for j in np.unique(np.linspace(0, len(chosen) - 1, MOST).astype(int))]
  return [_panel(results, at[x], x, distance) for x in chosen]


def best(panels: Sequence[Panel], distance: str) -> int:
  """The panel in which the distance is least."""
  least = [
    min((np.nanmin(line.values[distance], initial=np.inf) for line in p.lines), default=np.inf)
    for p in panels
  ]
  return int(np.argmin(least))


def _panel(results: Results, cells: list[dict], x: float, distance: str) -> Panel:
  timed = [c | {'metrics': c['metrics'] | _seconds(results, c)} for c in cells]
  with_seconds = results._replace(metrics=results.metrics | {SECONDS: None})
  lines, steps = [], results.fields[STEPS]
  found = curves(with_seconds, STEPS, timed)
  for c, look in zip(found, _looks([c.settings for c in found])):
    calls = np.array([_calls(c.settings | {STEPS: int(s)}) for s in c.x], float)
    values = {CALLS: calls, steps: c.x} | c.metrics
    lines.append(Line(c.name, values, look, errors=c.errors))
  frames = [Frame(CALLS, y, steps, 'log', logs=(distance,)) for y in (distance, 'IS')]
  frames += [Frame(SECONDS, distance, steps, 'log', logs=(distance,))]
  return Panel(x, lines, frames)


def _looks(settings: Sequence[dict]) -> list[int]:
  """A style for each line; of more than there are colours, one colour a solver, a shape a grid."""
  pairs = [(s.get('sample.sampler.name'), s.get('sample.sampler.grid')) for s in settings]
  solvers, grids = (sorted(set(map(str, names))) for names in zip(*pairs))
  few = len(settings) <= 8 or len(set(pairs)) < len(pairs)
  if few or len(solvers) > 8 or len(grids) > len(SHAPES):
    return list(range(len(settings)))
  return [style_of(solvers.index(str(a)), grids.index(str(b))) for a, b in pairs]


def _calls(settings: dict) -> float:
  """Network calls for one image, a guide's apart; nan where that is not known."""
  from cfg_jax.equations import samplers  # here: they load JAX, for a second
  from cfg_jax.equations.guidance import pairs, rules

  def section(name: str) -> dict:
    start = f'sample.{name}.'
    return {k.removeprefix(start): v for k, v in settings.items() if k.startswith(start)}

  sampler = {k: v for k, v in section('sampler').items() if v is not None}
  if sampler.get('name') not in samplers.NAMES:
    return np.nan
  guidance = {k: v for k, v in section('guidance').items() if v is not None}
  if guidance['pair'] == 'classes':
    return np.nan  # as many as the data have classes
  ends = (settings.get(f'diffusion.lambda_{end}') for end in ('min', 'max'))
  lam = samplers.visited(sampler, *(e if e is not None else d for e, d in zip(ends, (-20.0, 20.0))))
  knobs = rules.knobs_of(guidance)
  both = sampler['name'] in samplers.PARTICLES
  network, _ = pairs.calls_along(guidance['pair'], guidance['rule'], knobs, lam, both)
  return network


def _seconds(results: Results, cell: dict) -> dict[str, float]:
  """How long an image of the cell took to draw, if that was recorded."""
  run = results.runs[cell['run']].resolve()
  path = (run / str(cell.get('samples', '.')) / 'speed.json').resolve()
  try:
    if path.is_relative_to(run) and path.exists():
      return {SECONDS: float(files.read_json(path)['seconds_per_image'])}
  except (UserError, OSError, KeyError, TypeError, ValueError):
    pass  # a page without it is better than none
  return {}
