"""The report's pictures: line charts as plain geometry, contact sheets, and the README's PNG."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cfg_jax.papers import tables as paper
from cfg_jax.report import cells as results
from cfg_jax.report.cells import Curve, Pictures, format_value

WIDTH, HEIGHT = 400, 300  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40


def ticks(low: float, high: float, count: int = 6) -> list[float]:
  """About `count` round numbers (1, 2 or 5 times a power of ten) that cover [low, high]."""
  if low == high:
    low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
  span = high - low
  step = 10 ** math.floor(math.log10(span / count))
  step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= count)
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [round(j * step, 12) for j in range(first, last + 1)]


def chart(title: str, x_label: str, y_label: str, lines: Sequence[dict]) -> dict | None:
  """Geometry of one chart in WIDTH × HEIGHT units, for the template to draw.

  A line is {'name', 'group', 'style', 'dashed', 'x', 'y', 'w'}; points whose x or y is not finite
  are left out, and w is nan where there is none. None when no point is left.
  """
  lines = [
    line | {'points': [p for p in zip(line['x'], line['y'], line['w']) if np.isfinite(p[:2]).all()]}
    for line in lines
  ]
  points = [p for line in lines for p in line['points']]
  if not points:
    return None
  xs, ys = (ticks(min(c), max(c)) for c in list(zip(*points))[:2])

  def place_x(x: float) -> float:
    return round(LEFT + (x - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - LEFT - RIGHT), 2)

  def place_y(y: float) -> float:
    return round(HEIGHT - BOTTOM - (y - ys[0]) / (ys[-1] - ys[0]) * (HEIGHT - TOP - BOTTOM), 2)

  drawn = []
  for j, line in enumerate(lines):
    dots = [
      {
        'x': place_x(x),
        'y': place_y(y),
        'w': f'{w:g}',
        'label': '',
        'tip': f'{line["name"]}: '
        + ', '.join(
          f'{name} {value:.4g}'
          for name, value in (('w =', w), (x_label, x), (y_label, y))
          if name != 'w' and np.isfinite(value)
        ),
      }
      for x, y, w in line['points']
    ]
    if j == 0 and x_label != 'w' and len(dots) > 2:  # say where w starts, turns and ends, once
      for i in {0, int(np.argmin([x for x, _, _ in line['points']])), len(dots) - 1}:
        dots[i]['label'] = f'w = {dots[i]["w"]}'
    path = 'M' + 'L'.join(f'{d["x"]:g} {d["y"]:g}' for d in dots) if dots else ''
    keys = ('name', 'group', 'style', 'dashed')
    drawn.append({k: line[k] for k in keys} | {'dots': dots, 'path': path})
  return {
    'title': title,
    'x_label': x_label,
    'x_ticks': [(place_x(t), f'{t:g}') for t in xs],
    'y_ticks': [(place_y(t), f'{t:g}') for t in ys],
    'lines': drawn,
  }


def with_papers(curves: Sequence[Curve], dataset: str) -> list[dict]:
  """Lines of 'w', 'fd', 'is': ours, and beside FID-50k the paper's and other models'.

  A line of the paper has the style of ours with its setting, or None; another model's is a point
  without w.
  """
  lines = [
    {'name': c.name, 'style': j, 'dashed': False, 'w': c.w, 'fd': c.fd, 'is': c.inception_score}
    for j, c in enumerate(curves)
  ]
  if curves[0].distance != 'FID-50k':
    return lines
  for p in paper.curves(dataset):
    match = [j for j, c in enumerate(curves) if c.settings.get(p.field) == p.value]
    name, style = f'paper, {p.field} = {p.value:g}', match[0] if match else None
    values = {'w': p.w, 'fd': p.fid, 'is': p.inception_score}
    lines.append({'name': name, 'style': style, 'dashed': True} | values)
  for b in paper.baselines(dataset):
    values = {'w': (math.nan,), 'fd': (b.fid,), 'is': (b.inception_score,)}
    lines.append({'name': b.model, 'style': None, 'dashed': False} | values)
  return lines


def charts(curves: Sequence[Curve], dataset: str, first: int = 0) -> list[dict]:
  """IS over FD, FD over w and IS over w, of ours and of the paper.

  `first` numbers the lines on from an earlier panel's, so that each has a `group` of its own.
  """
  distance = curves[0].distance
  lines = [line | {'group': j} for j, line in enumerate(with_papers(curves, dataset), start=first)]
  wanted = (
    (f'IS over {distance}', distance, 'IS', 'fd', 'is'),
    (f'{distance} over w', 'w', distance, 'w', 'fd'),
    ('IS over w', 'w', 'IS', 'w', 'is'),
  )
  drawn = [
    chart(title, x_label, y_label, [line | {'x': line[x], 'y': line[y]} for line in lines])
    for title, x_label, y_label, x, y in wanted
  ]
  return [c for c in drawn if c]


def sheet(images: np.ndarray) -> tuple[bytes, int]:
  """A PNG of (rows, columns, H, W, C) images with transparent gaps between, and the gap's width."""
  rows, columns, height, width, channels = images.shape
  gap = max(1, height // 16)
  opaque = np.full((*images.shape[:4], 1), 255, np.uint8)
  tiles = np.concatenate([images, opaque], axis=-1)
  tiles = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)))
  flat = tiles.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), channels + 1)
  buffer = io.BytesIO()
  Image.fromarray(flat[:-gap, :-gap]).save(buffer, 'png', optimize=True)
  return buffer.getvalue(), gap


def embed(pictures: Pictures) -> dict:
  """Sheets of one sampler setting as data URIs: sheet k has each class's k-th noise, one a row."""
  of_class = [np.flatnonzero(pictures.labels == c) for c in np.unique(pictures.labels)]
  noises = min(len(rows) for rows in of_class)
  sheets, gap = [], 0
  for k in range(noises):
    png, gap = sheet(pictures.images[[rows[k] for rows in of_class]])
    sheets.append('data:image/png;base64,' + base64.b64encode(png).decode())
  height, width = pictures.images.shape[2:4]
  scale = max(1, (44 if len(pictures.w) <= 12 else 28) // width) if width <= 96 else 96 / width
  return {
    'name': pictures.name,
    'settings': {k: format_value(v) for k, v in pictures.settings.items()},
    'w': [f'{w:g}' for w in pictures.w],
    'classes': [int(c) for c in np.unique(pictures.labels)],
    'indices': [[int(pictures.indices[rows[k]]) for rows in of_class] for k in range(noises)],
    'pitch': (width + gap, height + gap),  # of a tile and the gap after it
    'gap': gap,
    'scale': scale,
    'sheets': sheets,
  }


def write_png(workdir: Path, path: Path) -> None:
  """The README's picture: the three curves, and the samples of one run, rows = classes.

  Raises:
    ValueError: `workdir` holds no evaluated cell.
  """
  import matplotlib  # a second to import, and the page does without it

  matplotlib.use('agg')
  import matplotlib.pyplot as plt

  found = results.read(workdir)
  curves = results.curves(found.cells)
  pictures, _ = results.pictures(found, max_bytes=2**22)
  distance = curves[0].distance
  figure, axes = plt.subplots(
    *(1, 4 if pictures else 3), figsize=(13 if pictures else 10, 3.4), layout='constrained'
  )
  for ax, (x, y) in zip(axes, ((distance, 'IS'), ('w', distance), ('w', 'IS'))):
    for c in (c for c in curves if c.distance == distance):
      values = {'w': c.w, distance: c.fd, 'IS': c.inception_score}
      ax.plot(values[x], values[y], marker='o', markersize=3, linewidth=1.2, label=c.name)
    ax.set(xlabel=x, ylabel=y)
    ax.spines[['top', 'right']].set_visible(False)
  axes[2].legend(frameon=False, fontsize=8)
  if pictures:
    shown = pictures[0]
    classes, firsts = np.unique(shown.labels, return_index=True)
    columns = np.unique(np.linspace(0, len(shown.w) - 1, min(8, len(shown.w))).round().astype(int))
    height, width = shown.images.shape[2:4]
    tiles = shown.images[firsts][:, columns]
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    flat = tiles.swapaxes(1, 2).reshape(len(firsts) * (height + 1), -1, tiles.shape[-1])
    axes[3].imshow(flat.squeeze(), cmap='gray', vmin=0, vmax=255)
    axes[3].set_xticks(np.arange(len(columns)) * (width + 1) + width / 2 - 0.5)
    axes[3].set_xticklabels([f'{shown.w[j]:g}' for j in columns])
    axes[3].set_yticks(np.arange(len(classes)) * (height + 1) + height / 2 - 0.5, classes)
    axes[3].set(xlabel='w', ylabel='class')
    axes[3].set_title(shown.name, fontsize=9)
    axes[3].tick_params(length=0, labelsize=8)
    axes[3].spines[:].set_visible(False)
  figure.savefig(path, dpi=110, metadata={'Software': None})
  plt.close(figure)


def write_frontier(workdir: Path, path: Path) -> None:
  """Figures 4 and 5: IS over FID, a curve for each setting, the paper's dashed in its colour.

  Raises:
    ValueError: `workdir` holds no evaluated cell.
  """
  import matplotlib

  matplotlib.use('agg')
  import matplotlib.pyplot as plt

  curves = results.curves(results.read(workdir).cells)
  distance, dataset = curves[0].distance, curves[0].settings['dataset']
  alike = [c for c in curves if (c.distance, c.settings['dataset']) == (distance, dataset)]
  figure, ax = plt.subplots(figsize=(6, 4.5), layout='constrained')
  for line in with_papers(alike, dataset):
    ax.plot(
      *(line['fd'], line['is'], '--' if line['dashed'] else '-o'),
      color='grey' if line['style'] is None else f'C{line["style"]}',
      **{'markersize': 3, 'linewidth': 1.2, 'label': line['name']},
    )
  ax.set(xlabel=distance, ylabel='IS')
  ax.spines[['top', 'right']].set_visible(False)
  ax.legend(frameon=False, fontsize=8)
  figure.savefig(path, dpi=110, metadata={'Software': None})
  plt.close(figure)
