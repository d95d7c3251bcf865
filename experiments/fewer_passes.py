"""Guidance in fewer passes, on the digits: learnt by one, or sharing what comes before the class.

  python -m experiments.fewer_passes --workdir runs/fewer

A sweep (see `cfg_jax.sweep`, whose flags it takes) of models of one size, p_uncond = 0.1, drawn by
one sampler from the same three noises, 500 samples each:

  two passes    ε(z, c) and ε(z), at each w
  one pass      a model for each w, which is taught it (method.guidance), drawn unguided
  shared trunk  the class is told after the middle (model.late_condition): its two passes share what
                comes before, at each w

Ends with fewer_passes.png and fewer_passes.txt: what each draws beside two passes at the same w,
and beside their frontier, and what an image takes, timed here with the ways in turns. Stopped, it
goes on where it was.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax import papers
from cfg_jax.core import command, runtime, sharding
from cfg_jax.data import kinds, registry
from cfg_jax.generate.draw import images_at_once, load_params
from cfg_jax.generate.store import sample_sets
from cfg_jax.methods import drawing
from cfg_jax.plan import cost
from cfg_jax.report import cells, charts, noise
from cfg_jax.report.charts import Frame, Line
from cfg_jax.report.curves import Curve, curves
from cfg_jax.report.told import told
from cfg_jax.sweep import __main__ as sweep
from cfg_jax.sweep import grid
from experiments import guidance_frontiers as frontiers
from experiments import guidance_lab as lab
from experiments import ratios

AXIS = papers.DEFAULT.study.axis
TAUGHT = 'method.guidance'
W = '0.1,0.3,1'
PLAIN, ONE, SHARED = 'two passes', 'one pass', 'shared trunk'
WAYS = {  # the axes of each, by its name
  PLAIN: (*lab.COMMON, f'{AXIS}=0,{W}'),
  ONE: (*lab.COMMON, f'{TAUGHT}={W}', f'{AXIS}=0'),
  SHARED: (*lab.COMMON, 'model.late_condition=4', f'{AXIS}=0,{W}'),  # of 8: down, and the middle
}
COLUMNS = ('IS', 'precision', 'recall')
MS = 'ms an image'
TURNS = 5  # in which each way is timed


class Way(NamedTuple):
  """One way to guide, and what a guided image costs."""

  name: str
  curve: Curve  # over w, the mean of the seeds
  calls: float  # of the network a step, by FLOPs
  training: float  # GFLOP an image
  ms: float


def runs(config: ml_collections.ConfigDict, name: str) -> list[grid.Run]:
  """The models of a way."""
  return grid.runs_of(config, grid.parse(WAYS[name], config))


def read(workdir: Path, config: ml_collections.ConfigDict) -> list[Way]:
  """What the sweep has found, two passes first, and each way timed. UserError if there is none."""
  results, taken = cells.read(workdir, AXIS), milliseconds(workdir, config)
  found = []
  for name in WAYS:
    own = []
    for run in runs(config, name):
      paths = {p.path for s in run.samplings for p in sample_sets(s.config.sample, s.step)}
      n = config.sample.num_samples
      of_run = [c for c in results.cells if c['run'] == run.name and c['samples'] in paths]
      own += [c | _as_one_model(run) for c in of_run if c['n'] == n]
    [curve] = curves(results, AXIS, own)
    last = run.samplings[0].config  # of the largest w
    calls = cost.image_calls(last, last.sample.guidance.w[-1]) / cost.image_calls(last, 0.0)
    training = cost.train_flops(last, remat=False).compiler / 1e9
    found.append(Way(name, curve, calls, training, taken[name]))
  return found


def _as_one_model(run: grid.Run) -> dict:
  """What a cell of a model that is taught its w is called: that w, of one model for all."""
  taught = run.config.method.get('guidance')
  return {AXIS: taught, 'run': ONE, TAUGHT: None} if taught else {}


def milliseconds(workdir: Path, config: ml_collections.ConfigDict) -> dict[str, float]:
  """What an image takes to draw at the largest w: the least of several times, the ways in turns."""
  mesh, n = sharding.data_mesh(), images_at_once(config.sample, jax.device_count())
  indices, draws = np.arange(n, dtype=np.int32), []
  classes = registry.of(config.data).num_classes
  for name in WAYS:
    run = runs(config, name)[-1]
    own = run.samplings[0].config
    _, params = load_params(own, workdir / run.name, None, mesh)
    c = kinds.choose(own.sample.labels, own.sample.seed, indices, classes)
    knobs = drawing.knobs(own, np.full(n, own.sample.guidance.w[-1], np.float32))
    given = jax.device_put((indices, c, knobs), sharding.batch(mesh))
    draw = drawing.make_sampler(own, mesh)
    draws.append(functools.partial(draw, params, *given, np.uint32(own.sample.seed)))
  least = ratios.in_turns(TURNS, *draws).min(axis=1)
  return {name: 1000 * s / n for name, s in zip(WAYS, least)}


def beside_frontier(way: Way, i: int, plain: Way) -> noise.Difference:
  """The distance of a point less that of two passes at its IS, between two of their w, by seed."""
  name, own, theirs = way.curve.distance, [], []
  for a, b in zip(way.curve.members, plain.curve.members):
    own.append(a.values(name)[i])
    rising = np.maximum.accumulate(b.values('IS'))
    theirs.append(np.interp(a.values('IS')[i], rising, b.values(name)))
  return noise.Difference(*frontiers.difference(own, theirs))


def findings(found: Sequence[Way]) -> list[str]:
  """The page in words."""
  plain, *others = found
  name = plain.curve.distance
  lines = [f'{PLAIN}: {plain.ms:.3g} ms an image, {plain.training:.3g} GFLOP to train on one.']
  for way in others:
    lines.append(
      f'{way.name}: {way.ms:.3g} ms an image, {way.ms / plain.ms:.2f} of the time, in '
      f'{way.calls:.3g} network calls a step, {way.calls / plain.calls:.2f} of the FLOPs; to train '
      f'it takes {way.training / plain.training:.2f} times the FLOPs.'
    )
    for i, w in enumerate(way.curve.x):
      at = {k: told(way.curve.values(k)[i], way.curve.error(k)[i]) for k in (name, 'IS')}
      d = lab.apart(way, i, plain, list(plain.curve.x).index(w))
      lines.append(
        f'  w = {w:g}: {name} {at[name]}, {frontiers.words(d)} from {PLAIN} at this w; at its IS, '
        f'{at["IS"]}, {frontiers.words(beside_frontier(way, i, plain))} from their frontier.'
      )
  return lines


def table(found: Sequence[Way]) -> str:
  """Markdown: every way at every w."""
  plain, name = found[0], found[0].curve.distance
  beside = f'{name} less that of {PLAIN}', 'less their frontier’s at its IS'
  columns = ('', 'w', 'calls a step', MS, name, *COLUMNS, *beside)
  lines = [f'| {" | ".join(columns)} |', '|---' * len(columns) + '|']
  for way in found:
    c = way.curve
    for i, w in enumerate(c.x):
      row = [way.name, f'{w:g}', *([f'{way.calls:.3g}', f'{way.ms:.3g}'] if w else ['1', ''])]
      row += [told(c.values(k)[i], c.error(k)[i]) for k in (name, *COLUMNS)]
      same = lab.apart(way, i, plain, list(plain.curve.x).index(w))
      both = same, beside_frontier(way, i, plain)
      row += ['', ''] if way is plain else [told(*d[:2]) for d in both]
      lines.append(f'| {" | ".join(row)} |')
  return '\n'.join(lines) + '\n'


def draw(found: Sequence[Way], path: Path) -> None:
  """Three charts: IS over the distance, recall over precision, the distance over milliseconds."""
  name = found[0].curve.distance
  frames = [*frontiers.frames(name), Frame(MS, name, 'w', logs=(name,))]
  lines = [
    Line(
      f'{way.name}, {way.ms:.2g} ms an image',
      {'w': way.curve.x, MS: np.where(way.curve.x == 0, np.nan, way.ms)} | way.curve.metrics,
      j,
      errors=way.curve.errors,
    )
    for j, way in enumerate(found)
  ]
  with charts.style(**{'font.size': 10}):
    figure = Figure(figsize=(13, 4.4), layout='constrained')
    axes = figure.subplots(1, len(frames))
    for ax, frame in zip(axes, frames):
      charts.draw(ax, lines, frame)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc='outside lower left')
    for ax, frame in zip(axes, frames):
      charts.label(figure, ax, lines, frame)
    figure.savefig(path, dpi=110, metadata={'Software': None})


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS
  given.set = [lab.SAMPLES, *given.set]
  config = command.config_of_file()
  runtime.setup_jax(config.sample.batch_size, channels=config.model.channels)
  workdir = sweep.sweep(grids=list(WAYS.values()))
  found = read(workdir, config)
  path = workdir / 'fewer_passes.png'
  draw(found, path)
  frontiers.tell(path, findings(found), f'\n{table(found)}')


def define_flags() -> None:
  """A sweep's flags."""
  sweep.define_flags('digits')


if __name__ == '__main__':
  define_flags()
  command.run(main)
