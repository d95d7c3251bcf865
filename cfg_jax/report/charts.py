"""Curves as line charts: one drawing program, as SVG inside the page and as PNG files.

Matplotlib draws both. In the page every colour is a CSS variable, so that dark mode changes it, and
every line and point can be found: `data-group` is a line's number, `data-tip` what a point says.
"""

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
SHAPES = 'os^D'
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
  bands: by metric, the lower and upper values (N,) of a band to be shaded.
  """

  name: str
  values: dict[str, np.ndarray]
  style: int | None
  dashed: bool = False
  bands: dict[str, tuple[np.ndarray, np.ndarray]] = {}


class Frame(NamedTuple):
  """What is on the two axes of a chart, and which one of all names is the study's axis."""

  x: str
  y: str
  axis: str
  scale: str = 'linear'  # of x: 'linear', 'log' or 'symlog'

  @property
  def title(self) -> str:
    """In words."""
    return f'{self.y} over {self.x}'


def lines_of(curves: Sequence[Curve], published: Sequence[Published], axis: str) -> list[Line]:
  """Ours, then what the paper prints, in the colour of ours with its setting, if there is one."""
  lines = [Line(c.name, {axis: c.x} | c.metrics, j) for j, c in enumerate(curves)]
  for p in published:
    alike = [j for j, c in enumerate(curves) if p.column and p.column.items() <= c.settings.items()]
    values = {axis: np.array(p.x)} | {k: np.array(v) for k, v in p.metrics.items()}
    lines.append(Line(p.name, values, alike[0] if alike else None, bool(p.column)))
  return lines


def frames(distance: str, axis: str, scale: str) -> list[Frame]:
  """The charts of a panel: IS over the distance, and each over the axis."""
  return [
    Frame(distance, 'IS', axis),
    Frame(axis, distance, axis, scale),
    Frame(axis, 'IS', axis, scale),
  ]


def points(line: Line, frame: Frame) -> np.ndarray:
  """(x, y, value on the axis) of each point whose x and y are known, (N, 3)."""
  if not {frame.x, frame.y} <= line.values.keys():
    return np.empty((0, 3))
  found = np.stack([line.values[k] for k in (frame.x, frame.y, frame.axis)], axis=1)
  return found[np.isfinite(found[:, :2]).all(axis=1)]


def draw(ax: Axes, lines: Sequence[Line], frame: Frame) -> None:
  """Draws the lines, the first on top, and says where the first one starts, turns and ends."""
  ax.set(xlabel=frame.x, ylabel=frame.y)
  _set_scale(ax, lines, frame)
  for j, line in enumerate(lines):
    known, look = points(line, frame), _look(line) | {'zorder': 2.9 - j / len(lines)}
    if frame.y in line.bands:
      shade = {'color': look['color'], 'alpha': 0.15, 'linewidth': 0, 'gid': f'band-{j}'}
      ax.fill_between(line.values[frame.x], *line.bands[frame.y], **shade)
    size = 4 if len(known) > 15 else 6
    ax.plot(*known[:, :2].T, **look, markersize=size, label=line.name, gid=f'line-{j}')
  first = points(lines[0], frame) if lines else []
  if frame.x != frame.axis and len(first) > 2:
    for i in sorted({0, int(np.argmin(first[:, 0])), len(first) - 1}):
      x, y, at = first[i]
      right = x > np.mean(ax.get_xlim())
      ax.annotate(
        f'{frame.axis} = {at:g}',
        (x, y),
        xytext=(-7, -15) if right else (8, -4),
        ha='right' if right else 'left',
        textcoords='offset points',
        color=LIGHT['soft'],
        gid='label',
      )


def _look(line: Line) -> dict:
  """What a line looks like, in matplotlib's words.

  Of a dashed one the points are not seen, and of a grey one that is not dashed only they are.
  """
  colour = LIGHT['soft' if line.style is None else f's{line.style % 8}']
  return {
    'color': colour,
    'linestyle': (0, (3, 2)) if line.dashed else 'none' if line.style is None else '-',
    'linewidth': 1.6,
    'marker': SHAPES[3 if line.style is None else line.style % 4],
    'markerfacecolor': 'none' if line.dashed else colour,
    'markeredgewidth': 0,
    'clip_on': False,
  }


def _set_scale(ax: Axes, lines: Sequence[Line], frame: Frame) -> None:
  """The scale of x, with ticks at 1, 2 and 5 times powers of ten, and at the largest value."""
  known = np.concatenate([points(line, frame)[:, 0] for line in lines])
  if frame.scale == 'linear' or not known.any():
    return
  least = np.abs(known[known != 0]).min()
  symlog = frame.scale == 'symlog'
  ax.set_xscale(frame.scale, **({'linthresh': least, 'linscale': 0.5} if symlog else {}))
  ticks = [m * 10.0**e for e in range(-9, 10) for m in (1, 2, 5)]
  ticks += [0, *(-t for t in ticks)] if symlog else []
  shown = [t for t in sorted(ticks) if known.min() <= t <= known.max() and not 0 < abs(t) < least]
  if not shown or known.max() > 1.5 * shown[-1]:
    shown.append(known.max())
  ax.set_xticks(shown, [f'{t:g}' for t in shown])
  ax.minorticks_off()


def svg(lines: Sequence[Line], frame: Frame, first: int = 0) -> str | None:
  """The chart as an <svg> for HTML; None where there is no point to draw.

  first: the number of lines[0] among the page's; `data-group` counts on from it.
  """
  if not any(len(points(line, frame)) for line in lines):
    return None
  with style():
    figure = Figure(figsize=(400 / 72, 300 / 72), layout='constrained')
    draw(figure.subplots(), lines, frame)
    root = _tree(figure)
  root.set('role', 'img')
  names = '; '.join(line.name for line in lines)
  root.set('aria-label', f'{frame.title}: {names}. The numbers are in the table below.')
  for group in root.iter('g'):
    kind, _, j = group.attrib.pop('gid', '').partition('-')
    if kind in ('line', 'band'):
      group.set('data-group', str(first + int(j)))
    if kind == 'line':
      _mark(group, lines[int(j)], frame)
    if kind == 'label':
      group.set('class', 'label')
  return ElementTree.tostring(root, encoding='unicode')


def _mark(group: ElementTree.Element, line: Line, frame: Frame) -> None:
  """Gives a line's path its class, and each of its points what it says and an area to be hit."""
  for path in group.findall('path'):
    path.set('class', 'line dashed' if line.dashed else 'line')
  for markers in group.findall('g'):
    for use, point in zip(list(markers), points(line, frame), strict=True):
      markers.remove(use)
      at = {name: use.attrib.pop(name) for name in 'xy'}
      told = {'data-x': f'{point[2]:g}', 'data-tip': _tip(line, frame, point)}
      place = {'class': 'point', 'transform': f'translate({at["x"]} {at["y"]})'}
      dot = ElementTree.SubElement(markers, 'g', place | told)
      ElementTree.SubElement(dot, 'circle', {'class': 'hit', 'r': '9'})
      if not line.dashed:
        use.set('class', 'dot')
        dot.append(use)


def _tip(line: Line, frame: Frame, point: np.ndarray) -> str:
  """A point in words."""
  at = dict(zip((frame.x, frame.y, frame.axis), point))
  told = [f'{frame.axis} = {at[frame.axis]:.4g}'] if np.isfinite(at[frame.axis]) else []
  told += [f'{name} {at[name]:.4g}' for name in (frame.x, frame.y) if name != frame.axis]
  return f'{line.name}: {", ".join(told)}'


def key(line: Line) -> str:
  """The sample of a line that the legend shows, as an <svg>."""
  with style():
    figure = Figure(figsize=(26 / 72, 10 / 72))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, 26), ylim=(0, 10))
    ax.axis('off')
    ax.plot([1, 13, 25], [5, 5, 5], **_look(line), markersize=6, markevery=[1])
    root = _tree(figure)
  root.set('class', 'key')
  root.set('aria-hidden', 'true')
  return ElementTree.tostring(root, encoding='unicode')


def _tree(figure: Figure) -> ElementTree.Element:
  """A figure as an SVG element for HTML: coordinates rounded, colours as CSS variables.

  Of ids only those of shapes that are used again stay; ids that we gave become `gid`.
  """
  file = io.StringIO()
  nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
  figure.savefig(file, format='svg', transparent=True, metadata=nothing)
  root = ElementTree.fromstring(file.getvalue())
  for name in ('width', 'height', 'version'):
    del root.attrib[name]
  for element in root.iter():
    element.tag = element.tag.rpartition('}')[2]
    element.text, element.tail = (text and text.strip() for text in (element.text, element.tail))
    given = {k.rpartition('}')[2]: v for k, v in element.attrib.items()}
    element.attrib.clear()
    if element.tag == 'g' and (name := given.pop('id', '')).startswith(('line-', 'band-', 'label')):
      given['gid'] = name
    element.attrib.update({k: _short(k, v) for k, v in given.items()})
  for defs in root.findall('defs'):
    for style in defs.findall('style'):  # it would be the whole page's
      defs.remove(style)
  return root


def _short(attribute: str, value: str) -> str:
  """The value of an attribute as the page wants it."""
  if attribute == 'style':
    value = re.sub(r'font-family: [^;]*;|font: [^;]*;', '', value)
    for name, light in LIGHT.items():
      value = value.replace(light, f'var(--{name})')
  elif attribute in ('d', 'x', 'y', 'width', 'height', 'transform'):
    value = re.sub(
      r'-?\d+\.\d+', lambda number: f'{float(number[0]):.2f}'.rstrip('0').rstrip('.'), value
    )
    value = ' '.join(value.split())
  return value
