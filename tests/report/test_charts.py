"""Charts as SVG: what a reader points at, in colours that the page decides."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from cfg_jax.report import charts, svg
from cfg_jax.report.charts import Frame, Line

X = np.array([0.0, 0.1, 1.0, 4.0])
LINE = Line('ours', {'w': X, 'IS': np.array([1.0, 2.0, np.nan, 4.0])}, 0)
OVER_W = Frame('w', 'IS', 'w')


def drawn(lines, frame=OVER_W, first=0):
  return ElementTree.fromstring(svg.svg(lines, frame, first))


def points(tree):
  """(data-x, data-tip, x, y) of every point, in SVG's units, y downwards."""
  found = []
  for g in tree.iter('g'):
    if g.get('class') == 'point':
      x, y = map(float, re.findall(r'[-\d.]+', g.get('transform')))
      found.append((g.get('data-x'), g.get('data-tip'), x, y))
  return found


def test_points_are_where_the_values_are_and_say_them():
  tree = drawn([LINE])
  found = points(tree)
  assert [(x, tip) for x, tip, _, _ in found] == [
    *(('0', 'ours: w = 0, IS 1'), ('0.1', 'ours: w = 0.1, IS 2'), ('4', 'ours: w = 4, IS 4'))
  ]
  _, _, x, y = zip(*found)
  np.testing.assert_allclose((x[1] - x[0]) / (x[2] - x[0]), 0.1 / 4, atol=1e-3)
  np.testing.assert_allclose((y[1] - y[0]) / (y[2] - y[0]), 1 / 3, atol=1e-3)
  assert y[2] < y[0]
  assert tree.get('viewBox') == '0 0 400 300' and tree.get('width') is None


@pytest.mark.parametrize('scale', ['log', 'symlog'])
def test_scales_of_x_spread_what_is_small(scale):
  x = X if scale == 'symlog' else X[1:]
  tree = drawn([Line('ours', {'w': x, 'IS': x}, 0)], OVER_W._replace(scale=scale))
  at = [p[2] for p in points(tree)][-3:]
  np.testing.assert_allclose((at[1] - at[0]) / (at[2] - at[0]), 1 / np.log10(40), atol=1e-3)
  labels = {t.text for t in tree.iter('text')}
  assert {'0.1', '0.2', '0.5', '1', '2', '4'} <= labels and ('0' in labels) == (scale == 'symlog')


def test_a_distance_of_many_sizes_is_on_a_log_scale_with_its_least_ringed():
  y = np.array([20.0, 10.0, 40.0, 80.0])
  frame = Frame('w', 'FD', 'w', least=True, logs=('FD',))
  tree = drawn([Line('ours', {'w': X, 'FD': y}, 0)], frame)
  at = [p[3] for p in points(tree)]
  np.testing.assert_allclose((at[0] - at[1]) / (at[3] - at[1]), 1 / 3, atol=1e-3)
  rings = [u for g in tree.iter('g') for u in g.findall('use') if u.get('class') != 'dot']
  ring = [u for u in rings if u.get('y') and abs(float(u.get('y')) - at[1]) < 0.1]
  assert len(ring) == 1 and abs(float(ring[0].get('x')) - points(tree)[1][2]) < 0.1


def test_bars_are_as_long_as_the_errors_and_said():
  line = LINE._replace(errors={'IS': np.full(4, 0.5)})
  tree = drawn([line], first=5)
  bars = [g for g in tree.iter('g') if g.get('data-group') == '5'][0].findall('path')
  length = [abs(np.subtract(*map(float, re.findall(r'[ML] \S+ (\S+)', b.get('d'))))) for b in bars]
  ours = points(tree)
  unit = (ours[0][3] - ours[-1][3]) / 3
  np.testing.assert_allclose(length, unit, rtol=0.01)
  assert len(bars) == 3 and ours[1][1] == 'ours: w = 0.1, IS 2.00 ± 0.50'


def test_words_beside_a_line_keep_clear_of_every_line():
  w = np.array([0.0, 0.1, 0.3, 1.0, 4.0])
  fd, score = np.array([20.0, 15.0, 12.0, 18.0, 80.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
  lines = [Line(str(k), {'w': w, 'FD': fd + 2 * k, 'IS': score - k / 9}, k) for k in range(4)]
  frame = Frame('FD', 'IS', 'w', turns=True)
  with charts.style():
    figure = Figure(figsize=(400 / 72, 300 / 72), layout='constrained')
    ax = figure.subplots()
    charts.draw(ax, lines, frame)
    charts.label(figure, ax, lines, frame)
    figure.draw_without_rendering()
  assert {t.get_text() for t in ax.texts} <= {'w = 0', 'w = 0.3', 'w = 4'} and ax.texts
  for text in ax.texts:
    box = text.get_window_extent()
    for line in lines:
      path = ax.transData.transform(charts.points(line, frame)[:, :2])
      t = np.linspace(0, len(path) - 1, 500)
      x, y = (np.interp(t, np.arange(len(path)), path[:, k]) for k in (0, 1))
      assert not ((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).any()


@pytest.mark.parametrize('low, high', [(0.0024, 0.027), (0.0023, 0.03), (8, 64)])
def test_the_ticks_of_a_log_axis_do_not_touch(low, high):
  x = np.geomspace(low, high, 7)
  with charts.style():
    figure = Figure(figsize=(400 / 72, 300 / 72), layout='constrained')
    ax = figure.subplots()
    charts.draw(ax, [Line('ours', {'s': x, 'IS': x}, 0)], Frame('s', 'IS', 's', 'log'))
    figure.draw_without_rendering()
  boxes = [text.get_window_extent() for text in ax.get_xticklabels()]
  assert len(boxes) >= 3
  assert all(b.x0 - a.x1 > 6 for a, b in zip(boxes, boxes[1:]))


def test_no_element_has_a_style_of_its_own():
  text = svg.svg([LINE._replace(errors={'IS': X})], OVER_W) + svg.key(LINE)
  assert 'style=' not in text and '<style' not in text


def test_a_band_is_shaded_between_its_values():
  low, high = X + 1, X + 3
  line = Line('ours', {'w': X, 'IS': X + 2}, 0, bands={'IS': (low, high)})
  tree = drawn([line], first=5)
  band, _ = [g for g in tree.iter('g') if g.get('data-group') == '5']  # and the line on top
  corners = re.findall(r'[ML] ([-\d.]+) ([-\d.]+)', next(band.iter('path')).get('d'))
  y = [float(v) for _, v in corners]
  ours = [p[3] for p in points(tree)]
  unit = (ours[0] - ours[-1]) / 4  # of IS
  np.testing.assert_allclose(max(y) - min(y), 6 * unit, rtol=0.01)  # from 1 to 7


def test_every_colour_is_a_variable_of_the_page():
  lines = [LINE._replace(style=j, dashed=j in (1, 3)) for j in (*range(9), None)]
  text = svg.svg(lines, OVER_W) + ''.join(map(svg.key, lines))
  assert set(re.findall(r'#[0-9a-f]{6}\b', text)) == set()
  assert {*re.findall(r'var\(--(\w+)\)', text)} == {*charts.PALETTE}
  tree = drawn(lines)
  assert len({g.get('data-group') for g in tree.iter('g')} - {None}) == len(lines)
  # What is dashed has no shape to see, and still says its values.
  assert len(points(tree)) == 3 * len(lines)
  assert len([u for u in tree.iter('use') if u.get('class') == 'dot']) == 3 * (len(lines) - 2)


def test_names_are_text_whatever_is_in_them():
  name = '<b>$x$ & "y"</b>'
  lines = [LINE._replace(name=name, values={'w': X, name: X})]
  tree = drawn(lines, Frame('w', name, 'w'))
  assert name in tree.get('aria-label') and not list(tree.iter('b'))
  assert name in [t.text for t in tree.iter('text')]


def test_nothing_to_draw_is_no_chart():
  assert svg.svg([LINE], Frame('w', 'KID', 'w')) is None


def test_equal_lines_give_equal_bytes_and_no_date():
  first = svg.svg([LINE], OVER_W)
  assert first == svg.svg([LINE], OVER_W) and '20' + '26' not in first and '://' not in first
