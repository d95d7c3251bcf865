"""Charts as SVG inside the page: what a reader points at says what it is, in the page's colours.

Every colour is a CSS variable, so that dark mode changes it, and no element has a style of its own,
which the page's content security policy forbids. `data-group` is a line's number among the page's,
`data-tip` what a point says.
"""

import io
import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure

from cfg_jax.report.charts import LIGHT, Frame, Line, draw, label, look_of, points, style
from cfg_jax.report.told import told


def svg(lines: Sequence[Line], frame: Frame, first: int = 0, named: int = 0) -> str | None:
  """The chart as an <svg> for HTML; None where there is no point to draw.

  first: the number of lines[0] among the page's; `data-group` counts on from it. named: the line
  that words are put beside.
  """
  if not any(len(points(line, frame)) for line in lines):
    return None
  with style():
    figure = Figure(figsize=(400 / 72, 300 / 72), layout='constrained')
    ax = figure.subplots()
    draw(ax, lines, frame)
    label(figure, ax, lines, frame, named)
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
      group.set('data-group', str(first + named))
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
      if look_of(line, frame)['markerfacecolor'] != 'none':
        use.set('class', 'dot')
        dot.append(use)


def _tip(line: Line, frame: Frame, point: np.ndarray) -> str:
  """A point in words."""
  at = dict(zip((frame.x, frame.y, frame.axis), point))
  said = [f'{frame.axis} = {at[frame.axis]:.4g}'] if np.isfinite(at[frame.axis]) else []
  for name in (frame.x, frame.y):
    if name != frame.axis:
      said.append(f'{name} {told(at[name], _error(line, frame, name, point))}')
  return f'{line.name}: {", ".join(said)}'


def _error(line: Line, frame: Frame, name: str, point: np.ndarray) -> float:
  """The error of a metric at a point."""
  here = (line.values[frame.x] == point[0]) & (line.values[frame.y] == point[1])
  if name in line.bands:
    return float((line.bands[name][1] - line.values[name])[here][0])
  return float(line.errors[name][here][0]) if name in line.errors else math.nan


def key(line: Line) -> str:
  """The sample of a line that the legend shows, as an <svg>."""
  with style():
    figure = Figure(figsize=(26 / 72, 10 / 72))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, 26), ylim=(0, 10))
    ax.axis('off')
    ax.plot([1, 13, 25], [5, 5, 5], **look_of(line), markersize=6, markevery=[1])
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
    given |= _declarations(given.pop('style', ''))
    element.attrib.update({k: _short(k, v) for k, v in given.items()})
  for defs in root.findall('defs'):
    for sheet in defs.findall('style'):  # it would be the whole page's
      defs.remove(sheet)
  return root


_ATTRIBUTES = re.compile(
  r'fill|fill-opacity|fill-rule|stroke|stroke-.*|opacity|font-size|text-anchor|clip-path'
)


def _declarations(css: str) -> dict[str, str]:
  """What a style says that an attribute can say as well."""
  found = dict(re.findall(r'([\w-]+): *([^;]+)', css))
  if font := re.search(r'([\d.]+px)', found.pop('font', '')):
    found['font-size'] = font[1]
  return {k: v for k, v in found.items() if _ATTRIBUTES.fullmatch(k)}


def _short(attribute: str, value: str) -> str:
  """The value of an attribute as the page wants it."""
  for name, light in LIGHT.items():
    value = value.replace(light, f'var(--{name})')
  if attribute in ('d', 'x', 'y', 'width', 'height', 'transform'):
    value = re.sub(
      r'-?\d+\.\d+', lambda number: f'{float(number[0]):.2f}'.rstrip('0').rstrip('.'), value
    )
    value = ' '.join(value.split())
  return value
