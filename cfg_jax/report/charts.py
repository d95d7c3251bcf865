"""Curves as line charts: one drawing program, as SVG inside the page (`svg`) and as PNG files."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cfg_jax.report.curves import Curve
from cfg_jax.report.study import Published

# A colour's name as a CSS variable, and what it is in light and in dark mode. Lines have s0 to s7.
PALETTE = {
  'ink': ('#1d2024', '#e6e7e8'),
  'soft': ('#5c636b', '#a2a9b1'),
  'rule': ('#e3e4e0', '#31353a'),
  's0': ('#1f6fb5', '#78b8f0'),
  's1': ('#c8501e', '#f2986c'),
  's2': ('#23804f', '#6fcf97'),
  's3': ('#8a4fb0', '#c79be8'),
  's4': ('#94690f', '#e0b85a'),
  's5': ('#c23b6b', '#f08bb0'),
  's6': ('#1f808f', '#72cbd8'),
  's7': ('#6b6f76', '#b3b8c0'),
}
LIGHT = {name: light for name, (light, _) in PALETTE.items()}
SHAPES = 'os^Dv'  # with the eight colours, forty looks
STYLE = {
  'svg.fonttype': 'none',  # text stays text
  'svg.hashsalt': 'cfg_jax',  # and ids the same
  'font.size': 12,
  'axes.edgecolor': LIGHT['soft'],
  'axes.labelcolor': LIGHT['ink'],
  'axes.spines.left': False,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.grid': True,
  'axes.grid.axis': 'y',
  'axes.axisbelow': True,
  'grid.color': LIGHT['rule'],
  'xtick.color': LIGHT['soft'],
  'ytick.color': LIGHT['soft'],
  'ytick.left': False,
  'axes.formatter.limits': (-4, 6),
  'text.parse_math': False,  # a name may have a $
}


def style(**changes: object) -> AbstractContextManager:
  """While entered, figures look as STYLE says, whatever the user's own matplotlibrc does."""
  return matplotlib.style.context(['default', STYLE | changes])


class Line(NamedTuple):
  """One line of a panel of charts, or the points of one.

  values: by the short name of the axis or the name of a metric, (N,), nan where one is unknown.
  style: the number of its colour and shape; None for grey, and without dashes for points alone.
  bands: by metric, the lower and upper values (N,) of a band to be shaded. errors: by metric, the
  half length of bars (N,). level: it is the same at all x; where x is not the axis it is a point.
  """

  name: str
  values: dict[str, np.ndarray]
  style: int | None
  dashed: bool = False
  bands: dict[str, tuple[np.ndarray, np.ndarray]] = {}
  errors: dict[str, np.ndarray] = {}
  level: bool = False


class Frame(NamedTuple):
  """What is on the two axes of a chart, and which one of all names is the study's axis."""

  x: str
  y: str
  axis: str
  scale: str = 'linear'  # of x: 'linear', 'log' or 'symlog'
  least: bool = False  # whether the least y of each line is marked
  logs: tuple[str, ...] = ()  # what is on a log scale, if it is of several sizes
  turns: bool = False  # whether it is said where a line starts, turns and ends

  @property
  def title(self) -> str:
    """In words."""
    return f'{self.y} over {self.x}'


def lines_of(curves: Sequence[Curve], published: Sequence[Published], axis: str) -> list[Line]:
  """Ours, then what the paper prints, in the colour of ours with its setting, if there is one."""
  lines = []
  for j, c in enumerate(curves):
    around = {k: (c.values(k) - e, c.values(k) + e) for k, e in c.errors.items()}
    spread = {'bands': around} if c.members else {'errors': c.errors}
    lines.append(Line(c.name, {axis: c.x} | c.metrics, j, **spread))
  for p in published:
    alike = [j for j, c in enumerate(curves) if p.column and p.column.items() <= c.settings.items()]
    values = {axis: np.array(p.x)} | {k: np.array(v) for k, v in p.metrics.items()}
    lines.append(Line(p.name, values, alike[0] if alike else None, bool(p.column)))
  return lines


def frames(distance: str, axis: str, scale: str) -> list[Frame]:
  """The charts of a panel: IS over the distance, and each over the axis."""
  return [
    Frame(distance, 'IS', axis, logs=(distance,), turns=True),
    Frame(axis, distance, axis, scale, least=True, logs=(distance,)),
    Frame(axis, 'IS', axis, scale),
  ]


def points(line: Line, frame: Frame) -> np.ndarray:
  """(x, y, value on the axis) of each point whose x and y are known, (N, 3)."""
  if not {frame.x, frame.y} <= line.values.keys():
    return np.empty((0, 3))
  found = np.stack([line.values[k] for k in (frame.x, frame.y, frame.axis)], axis=1)
  return found[np.isfinite(found[:, :2]).all(axis=1)]


def draw(ax: Axes, lines: Sequence[Line], frame: Frame) -> None:
  """Draws the lines, the first on top, with their errors; a ring is round the least of each."""
  ax.set(xlabel=frame.x, ylabel=frame.y)
  _set_scale(ax, lines, frame)
  for j, line in enumerate(lines):
    known, look = points(line, frame), look_of(line, frame) | {'zorder': 2.9 - j / len(lines)}
    shade = {'color': look['color'], 'gid': f'band-{j}'}
    if frame.y in line.bands:
      low, high = line.bands[frame.y]
      ax.fill_between(line.values[frame.x], low, high, alpha=0.18, linewidth=0, **shade)
    _draw_errors(ax, line, frame, shade | {'alpha': 0.6, 'linewidth': 1.1})
    size = 4 if len(known) > 15 else 6
    name = line.name if len(known) else '_nolegend_'
    ax.plot(*known[:, :2].T, **look, markersize=size, label=name, gid=f'line-{j}')
    if frame.least and line.style is not None and len(known) > 2:
      ring = {'marker': 'o', 'markersize': 13, 'markerfacecolor': 'none', 'linestyle': 'none'}
      ax.plot(*known[np.argmin(known[:, 1]), :2], **ring, **shade)


def _draw_errors(ax: Axes, line: Line, frame: Frame, look: dict) -> None:
  """Bars of one error up and down, and to both sides."""
  if not {frame.x, frame.y} <= line.values.keys():
    return
  x, y = line.values[frame.x], line.values[frame.y]
  for name, bars, at, middle in ((frame.y, ax.vlines, x, y), (frame.x, ax.hlines, y, x)):
    if name in line.errors:
      error = line.errors[name]
      known = np.isfinite(at) & np.isfinite(middle) & np.isfinite(error)
      if known.any():
        bars(at[known], (middle - error)[known], (middle + error)[known], **look)


def label(figure: Figure, ax: Axes, lines: Sequence[Line], frame: Frame, named: int = 0) -> None:
  """Says where a line, the first by default, starts, turns and ends, if nothing is in the way."""
  first = points(lines[named], frame) if lines else []
  if not frame.turns or len(first) < 3:
    return
  figure.draw_without_rendering()  # now places are known
  taken = [_path(ax, line, frame) for line in lines]
  box = ax.get_window_extent()
  unit = figure.dpi / 72
  for i in sorted({0, int(np.argmin(first[:, 0])), len(first) - 1}):
    text = f'{frame.axis} = {first[i, 2]:g}'
    size = np.array([6.6 * len(text), 13]) * unit
    at = ax.transData.transform(first[i, :2])
    places = [(dx, dy) for r in (12, 18, 28) for dx in (r, -r, 0) for dy in (0, r, -r) if dx or dy]
    for dx, dy in places:
      middle = at + np.array([dx, dy]) * unit + size / 2 * np.sign([dx, dy])
      low, high = middle - size / 2 - 5 * unit, middle + size / 2 + 5 * unit
      inside = (low >= box.min).all() and (high <= box.max).all()
      if not inside or any(((p > low) & (p < high)).all(axis=1).any() for p in taken):
        continue
      align = {1: 'left', -1: 'right', 0: 'center'}, {1: 'bottom', -1: 'top', 0: 'center'}
      ax.annotate(
        text,
        first[i, :2],
        xytext=(dx, dy),
        textcoords='offset points',
        ha=align[0][np.sign(dx)],
        va=align[1][np.sign(dy)],
        color=LIGHT['soft'],
        gid='label',
      )
      taken.append(np.linspace(low, high, 8))
      taken.append(np.array([middle]))
      break


def _path(ax: Axes, line: Line, frame: Frame) -> np.ndarray:
  """A line as many points of the picture, (N, 2), a few pixels apart."""
  found = points(line, frame)[:, :2]
  if not len(found):
    return np.empty((0, 2))
  places = ax.transData.transform(found)
  t = np.linspace(0, len(places) - 1, 60 * len(places))
  return np.stack([np.interp(t, np.arange(len(places)), places[:, k]) for k in (0, 1)], axis=1)


def style_of(colour: int, shape: int) -> int:
  """The style of a colour (0 to 7) and a shape (0 to 4): the number below 40 that leaves both."""
  return (25 * colour + 16 * shape) % 40


def look_of(line: Line, frame: Frame | None = None) -> dict:
  """What a line looks like, in matplotlib's words.

  Of a dashed one the points are not seen, and of a grey one that is not dashed only they are.
  """
  colour = LIGHT['soft' if line.style is None else f's{line.style % 8}']
  hollow = line.dashed and not (line.level and frame and frame.x != frame.axis)
  return {
    'color': colour,
    'linestyle': (0, (3, 2)) if hollow else 'none' if line.style is None else '-',
    'linewidth': 1.6,
    'marker': SHAPES[3 if line.style is None else line.style % 5],
    'markerfacecolor': 'none' if hollow else colour,
    'markeredgewidth': 0,
  }


def _set_scale(ax: Axes, lines: Sequence[Line], frame: Frame) -> None:
  """The scales of x and y; a distance of many sizes, and what `logs` says, is on a log scale."""
  for k, axis in enumerate((ax.xaxis, ax.yaxis)):
    name, scale = (frame.x, frame.y)[k], frame.scale if k == 0 else 'linear'
    known = np.concatenate([points(line, frame)[:, k] for line in lines] or [[]])
    if not known.any():
      continue
    if name in frame.logs and known.min() > 0 and known.max() > 3 * known.min():
      scale = 'log'
    if scale != 'linear':
      _set_ticks(axis, known, scale)


def _set_ticks(axis: Axis, known: np.ndarray, scale: str) -> None:
  """A log or symlog scale, ticks at 1, 2 and 5 times powers of ten, and at the largest value."""
  least = np.abs(known[known != 0]).min()
  symlog = scale == 'symlog'
  set_scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
  set_scale(scale, **({'linthresh': least, 'linscale': 0.5} if symlog else {}))
  ticks = [m * 10.0**e for e in range(-9, 10) for m in (1, 2, 5)]
  ticks += [0, *(-t for t in ticks)] if symlog else []
  shown = [t for t in sorted(ticks) if known.min() <= t <= known.max() and not 0 < abs(t) < least]
  if len(shown) < 4 and not symlog:  # less than a decade: the values themselves, or more ticks
    own = sorted(set(known.tolist()))
    ticks = [m * 10.0**e for e in range(-9, 10) for m in (1, 1.5, 2, 3, 4, 5, 7)]
    shown = [t for t in ticks if known.min() <= t <= known.max()]
    if len(own) <= 6 and all(b > 1.2 * a for a, b in zip(own, own[1:])):
      shown = own
  if not shown or known.max() > 1.5 * shown[-1]:
    shown.append(float(f'{known.max():.3g}'))
  if scale == 'log' and axis is axis.axes.xaxis:
    shown = _apart(shown, (known.max() / known.min()) ** (1 / 6))
  axis.set_ticks(shown, [f'{t:.3g}' for t in shown])
  axis.set_minor_locator(NullLocator())


def _apart(ticks: Sequence[float], ratio: float) -> list[float]:
  """Those of increasing ticks that are beyond the one before by a ratio, so that words fit."""
  kept = list(ticks[:1])
  for tick in ticks[1:]:
    if tick >= ratio * kept[-1]:
      kept.append(tick)
  return kept
