"""The report's curves and samples as PNG files: the README's picture, a paper's figure."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cfg_jax.core.pictures import tile
from cfg_jax.report import cells, charts, cost, pictures
from cfg_jax.report.curves import Curve, curves
from cfg_jax.report.study import Study


def write_png(workdir: Path, path: Path, study: Study) -> None:
  """The three charts, and the samples of one run: rows = classes.

  Raises UserError where `workdir` holds no evaluated cell.
  """
  results = cells.read(workdir, study.axis)
  name = results.fields[study.axis]
  ours = _alike(curves(results, study.axis))
  shown, _ = pictures.choose(results, study.axis, max_bytes=2**22)
  with charts.style(**{'font.size': 10}):
    figure = Figure(figsize=(13 if shown else 10, 3.8), layout='constrained')
    axes = figure.subplots(1, 4 if shown else 3)
    lines = charts.lines_of(ours, (), name)
    for ax, frame in zip(axes, charts.frames(ours[0].distance, name, study.scale)):
      charts.draw(ax, lines, frame)
    named = axes[2].get_legend_handles_labels()
    figure.legend(*named, frameon=False, fontsize=8, ncols=2, loc='outside lower left')
    if shown:
      _draw_samples(axes[3], shown[0], name)
    charts.label(figure, axes[0], lines, charts.frames(ours[0].distance, name, study.scale)[0])
    _outline(axes[0])
    figure.savefig(path, dpi=110, metadata={'Software': None})


def write_frontier(workdir: Path, path: Path, study: Study) -> None:
  """IS over the Fréchet distance, a curve for each setting, the paper's dashed in its colour.

  Raises UserError where `workdir` holds no evaluated cell.
  """
  results = cells.read(workdir, study.axis)
  name = results.fields[study.axis]
  ours = _alike(curves(results, study.axis))
  distance = ours[0].distance
  lines = charts.lines_of(ours, study.beside(ours[0].settings['dataset'], distance), name)
  with charts.style(**{'font.size': 10}):
    figure = Figure(figsize=(6, 4.5), layout='constrained')
    ax = figure.subplots()
    frame = charts.frames(distance, name, study.scale)[0]
    charts.draw(ax, lines, frame)
    ax.legend(frameon=False, fontsize=8)
    charts.label(figure, ax, lines, frame)
    _outline(ax)
    figure.savefig(path, dpi=110, metadata={'Software': None})


def write_cost(workdir: Path, path: Path, study: Study) -> None:
  """Metrics over network calls and seconds an image: a row for each value on the study's axis.

  Raises UserError where `workdir` holds no evaluated cell.
  """
  results = cells.read(workdir, study.axis)
  distance = results.cells[0].get('distance') or 'FD'
  panels = cost.panels(results, study.axis, results.cells, distance)
  with charts.style(**{'font.size': 10}):
    figure = Figure(figsize=(13, 4.2 * len(panels) + 1.5), layout='constrained')
    rows = figure.subplots(len(panels), 3, squeeze=False)
    for row, panel in zip(rows, panels):
      for ax, frame in zip(row, panel.frames):
        charts.draw(ax, panel.lines, frame)
      row[0].set_title(f'{results.fields[study.axis]} = {panel.x:g}', loc='left')
    named = rows[0][0].get_legend_handles_labels()
    figure.legend(*named, frameon=False, fontsize=8, ncols=4, loc='outside lower left')
    figure.savefig(path, dpi=100, metadata={'Software': None})


def _outline(ax: Axes) -> None:
  """Gives words a white border; in the page CSS does."""
  for text in ax.texts:
    text.set_path_effects([withStroke(linewidth=3, foreground='white')])


def _alike(found: list[Curve]) -> list[Curve]:
  """The curves of the first one's data set and distance."""
  kind = (found[0].distance, found[0].settings['dataset'])
  return [c for c in found if (c.distance, c.settings['dataset']) == kind]


def _draw_samples(ax: Axes, shown: pictures.Pictures, axis: str) -> None:
  """A contact sheet of one noise for each class."""
  classes, firsts = np.unique(shown.labels, return_index=True)
  columns = np.linspace(0, len(shown.x) - 1, min(8, len(shown.x))).round().astype(int)
  images = shown.images[firsts][:, columns]
  height, width = images.shape[2:4]
  colours = np.broadcast_to(images, (*images.shape[:4], 3))
  ax.imshow(tile(colours, gap=1))
  ax.set_xticks(np.arange(len(columns)) * (width + 1) + width / 2 - 0.5)
  ax.set_xticklabels([f'{shown.x[j]:g}' for j in columns])
  ax.set_yticks(np.arange(len(classes)) * (height + 1) + height / 2 - 0.5, classes)
  ax.set(xlabel=axis, ylabel='class')
  ax.set_title(shown.name, fontsize=8)
  ax.tick_params(length=0, labelsize=8)
  ax.grid(False)
  ax.spines[:].set_visible(False)
