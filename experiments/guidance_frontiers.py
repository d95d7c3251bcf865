"""Classifier-free guidance, and the classifier guidance that it answers, on one page: the digits.

  python -m cfg_jax.train --config configs/classifier_digits.py --workdir runs/guide
  python -m experiments.guidance_frontiers --workdir runs/frontiers

A sweep (see `cfg_jax.sweep`, whose flags it takes) of three models of one size, drawn by one
sampler from the same three noises:

  classifier-free            p_uncond = 0.1, guided with ∅
  classifier, conditional    p_uncond = 0, guided with the classifier of --guide, runs/guide
  classifier, unconditional  p_uncond = 1, likewise; its classifier's scale is w + 1

Ends with guidance_frontiers.png, and prints what it shows: the least distance of each, what an
image costs, and how accurate the samples are by the classifier that guided them and by the
extractor, which did not. Stopped, it goes on where it was.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax import papers
from cfg_jax.core import command, files, sharding
from cfg_jax.core import config as config_lib
from cfg_jax.data import batches
from cfg_jax.generate import store
from cfg_jax.methods import classifier, guides
from cfg_jax.nets import encoder
from cfg_jax.plan import cost
from cfg_jax.report import cells, charts, noise
from cfg_jax.report.charts import Frame, Line
from cfg_jax.report.curves import Curve, curves
from cfg_jax.report.told import told
from cfg_jax.sweep import __main__ as sweep

AXIS = papers.DEFAULT.study.axis
W = '0,0.1,0.3,0.5,1,2,4'
PAIR, P_UNCOND = 'sample.guidance.pair', 'method.p_uncond'
NAMES = {
  'null': 'classifier-free',
  'classifier': 'classifier, conditional',
  'classifier_unconditional': 'classifier, unconditional',
}
BY_GUIDE, BY_EXTRACTOR = 'accuracy by the guide', 'accuracy'


def grids(guide: str) -> list[tuple[str, ...]]:
  """The axes of the three ways to guide."""
  seeds = 'sample.seed=0,1,2'
  made = [(f'{P_UNCOND}=0.1', seeds, f'{AXIS}={W}')]
  for p_uncond, pair, w in ((0, 'classifier', W), (1, 'classifier_unconditional', f'-1,-0.5,{W}')):
    with_guide = f'{PAIR}={pair}', f'sample.guidance.guide={guide}'
    made.append((f'{P_UNCOND}={p_uncond}', *with_guide, seeds, f'{AXIS}={w}'))
  return made


class Way(NamedTuple):
  """One way to guide: its curve over w, and what a guided image costs."""

  name: str
  curve: Curve  # the mean of the seeds
  gflop: float
  seconds: float


def read(workdir: Path, guide: str) -> list[Way]:
  """What the sweep has found. UserError where there is nothing yet."""
  results = cells.read(workdir, AXIS)
  known = [c for c in results.cells if c.get(PAIR) in NAMES and c.get('sample.seed') is not None]
  _add_accuracy(results, known, guide)
  results = results._replace(metrics=results.metrics | {BY_GUIDE: None})
  found = []
  for curve in curves(results, AXIS, known):
    pair = curve.settings[PAIR]
    own = [c for c in known if c[PAIR] == pair and c[P_UNCOND] == curve.settings[P_UNCOND]]
    config = config_lib.of_run(results.runs[own[0]['run']])
    given = [f'{PAIR}={pair}'] + ([f'sample.guidance.guide={guide}'] if pair != 'null' else [])
    config = config_lib.change(config, given)
    flops = cost.image_calls(config, 1.0) * cost.forward_flops(config).compiler
    found.append(Way(NAMES[pair], curve, flops / 1e9, _seconds(results, own)))
  return sorted(found, key=lambda way: list(NAMES.values()).index(way.name))


def _add_accuracy(results: cells.Results, known: Sequence[dict], guide: str) -> None:
  """Gives each cell the share of its images that the guide takes for their class, at λ_max."""
  folder = files.expand(guide)
  its = config_lib.of_run(folder)
  config = config_lib.of_run(results.runs[known[0]['run']])
  given = [f'{PAIR}=classifier', f'sample.guidance.guide={guide}']
  params = guides.load(config_lib.change(config, given), sharding.data_mesh())['guide']
  apply = jax.jit(encoder.apply_fn(encoder.of(its)))
  least_noisy = classifier.ends_of(its)[1]
  for cell in known:
    samples = results.runs[cell['run']] / cell['samples']
    indices, labels = store.index(samples)
    x = batches.to_x(store.pick(samples, indices))
    logits, _ = apply(params, x, np.full(len(x), least_noisy, np.float32))
    cell['metrics'][BY_GUIDE] = float(np.mean(np.argmax(logits, axis=1) == labels))


def _seconds(results: cells.Results, own: Sequence[dict]) -> float:
  """The median seconds of a guided image, as they were drawn."""
  paths = [
    results.runs[c['run']] / c['samples'] / 'speed.json' for c in own if c[AXIS] not in (0, -1)
  ]
  found = [files.read_json(p)['seconds_per_image'] for p in paths if p.exists()]
  return float(np.median(found)) if found else math.nan


def findings(ways: Sequence[Way]) -> list[str]:
  """The page in words."""
  lines, best = [], {}
  for way in ways:
    curve, name = way.curve, way.curve.distance
    i = int(np.nanargmin(curve.values(name)))
    best[way.name] = [m.values(name)[i] for m in curve.members] or [curve.values(name)[i]]
    at = {
      k: told(curve.values(k)[i], curve.error(k)[i]) for k in (name, 'IS', 'precision', 'recall')
    }
    lines.append(
      f'{way.name}: least {name} {at[name]} at w = {curve.x[i]:g}, with IS {at["IS"]}, precision '
      f'{at["precision"]}, recall {at["recall"]}; a guided image takes {way.gflop:.3g} GFLOP and '
      f'{1000 * way.seconds:.3g} ms.'
    )
  free, *others = ways
  for way in others:
    a, b = best[way.name], best[free.name]
    text = told(*difference(a, b)[:2])
    clear = noise.Difference(*difference(a, b)).clear
    cheaper = 'less' if way.gflop < free.gflop else 'more'
    lines.append(
      f'{way.name}: its least {free.curve.distance} is {text} from that of classifier-free '
      f'guidance ({"more than noise" if clear else "within noise"}), at {cheaper} work: '
      f'{way.gflop / free.gflop:.2f} times its FLOPs, {way.seconds / free.seconds:.2f} times its '
      'seconds.'
    )
    i = int(np.argmax(way.curve.x))
    lines.append(
      f'{way.name}, w = {way.curve.x[i]:g}: the guide takes '
      f'{100 * way.curve.values(BY_GUIDE)[i]:.1f} % of the samples for their class, the extractor '
      f'{100 * way.curve.values(BY_EXTRACTOR)[i]:.1f} %; of classifier-free guidance they take '
      f'{100 * free.curve.values(BY_GUIDE)[-1]:.1f} % and '
      f'{100 * free.curve.values(BY_EXTRACTOR)[-1]:.1f} %.'
    )
  return lines


def difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
  """Of two means over the same seeds, by seed: (value, error, how many errors count)."""
  by_seed = np.subtract(a, b)
  if len(by_seed) < 2:
    return float(by_seed.mean()), math.nan, 2.0
  error = float(np.std(by_seed, ddof=1) / math.sqrt(len(by_seed)))
  return float(by_seed.mean()), error, noise.student(len(by_seed))


def words(d: noise.Difference) -> str:
  """A difference, and whether it is more than noise."""
  sign = '+' if d.value > 0 else ''
  return f'{sign}{told(*d[:2])} ({"more than noise" if d.clear else "within noise"})'


def tell(path: Path, lines: Sequence[str], more: str = '') -> None:
  """Prints findings, and leaves them as text beside the picture at path, with more below."""
  text = '\n'.join(lines)
  files.write_text(path.with_suffix('.txt'), f'{text}\n{more}')
  print(f'{text}\n{path}')


def frames(distance: str) -> list[Frame]:
  """The charts of a frontier: IS over the distance, and recall over precision."""
  return [
    Frame(distance, 'IS', 'w', logs=(distance,), turns=True),
    Frame('precision', 'recall', 'w', turns=True),
  ]


def draw(ways: Sequence[Way], path: Path) -> None:
  """Three charts: IS over the distance, recall over precision, and both accuracies over w."""
  name = ways[0].curve.distance
  with charts.style(**{'font.size': 10}):
    figure = Figure(figsize=(13, 4.4), layout='constrained')
    axes = figure.subplots(1, 3)
    lines = []
    for j, way in enumerate(ways):
      c = way.curve
      title = f'{way.name}, {way.gflop:.2g} GFLOP an image'
      lines.append(Line(title, {'w': c.x} | c.metrics, j, errors=c.errors))
    for ax, frame in zip(axes, frames(name)):
      charts.draw(ax, lines, frame)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc='outside lower left')
    both = []
    for j, way in enumerate(ways):
      for by in (BY_EXTRACTOR, BY_GUIDE):
        shown = way.curve.x >= 0
        values = {'w': way.curve.x[shown], 'accuracy': way.curve.values(by)[shown]}
        both.append(Line(way.name, values, j, by == BY_GUIDE))
    charts.draw(axes[2], both, Frame('w', 'accuracy', 'w', 'symlog'))
    axes[2].set_title('by the extractor; dashed, by the classifier that guides', fontsize=9)
    for ax, frame in zip(axes, frames(name)):
      charts.label(figure, ax, lines, frame)
    figure.savefig(path, dpi=110, metadata={'Software': None})


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  workdir = sweep.sweep(grids=grids(flags.FLAGS.guide))
  ways = read(workdir, flags.FLAGS.guide)
  path = workdir / 'guidance_frontiers.png'
  draw(ways, path)
  tell(path, findings(ways))


def define_flags() -> None:
  """A sweep's flags, and the guide."""
  sweep.define_flags('digits')
  flags.DEFINE_string('guide', 'runs/guide', "The classifier's run.")


if __name__ == '__main__':
  define_flags()
  command.run(main)
