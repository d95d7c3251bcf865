"""Every rule of guidance on the digits: quality over w, and what a step of it costs.

  python -m experiments.guidance_lab --workdir runs/lab

A sweep (see `cfg_jax.sweep`, whose flags it takes) of one model, p_uncond = 0.1, drawn under each
of `ways` from the same three noises, 500 samples each. The sampler is the digits' own, six calls of
the network, so that an interval is named by which of them it guides; CFG++ is for DDIM, feedback
for DDPM, and each has plain guidance by it beside it. Autoguidance moves away from this run's own
earlier checkpoints.
Stopped, it goes on where it was. Ends with guidance_lab.png and guidance_lab.txt, what it shows in
words: above all which rule reaches plain guidance's least distance at 1.3 network calls a step or
fewer, where an unguided step is 1 and a guided one 2.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax import papers
from cfg_jax.core import command, sharding, steps
from cfg_jax.data import kinds, registry
from cfg_jax.equations import conditioning, guidance, samplers
from cfg_jax.equations.guidance import pairs, rules
from cfg_jax.generate.draw import load_params
from cfg_jax.generate.store import sample_sets
from cfg_jax.methods import drawing
from cfg_jax.nets import unet
from cfg_jax.plan import cost
from cfg_jax.report import cells, charts, noise
from cfg_jax.report.charts import Frame, Line
from cfg_jax.report.curves import Curve, curves
from cfg_jax.report.told import told
from cfg_jax.sweep import __main__ as sweep
from cfg_jax.sweep import grid
from experiments import guidance_frontiers as frontiers

AXIS = papers.DEFAULT.study.axis
RULE = 'sample.guidance.rule'
COMMON = ('method.p_uncond=0.1', 'sample.seed=0,1,2')
WEAK = {'a tenth': 1, 'half': 5}  # of the training, in tenths of its steps
SAMPLES = 'sample.num_samples=500'
MOST = 1.3  # network calls a step
COUNTED = 100  # samples that adaptive guidance is counted on
PLAIN, CALLS = 'classifier_free', 'network calls a step'


def ways(run: Path, num_steps: int) -> dict[str, tuple[str, ...]]:
  """The axes of each way to guide, by name; run: the model's folder, of so many training steps."""
  few, little, more = (f'{AXIS}={w}' for w in ('0.1,0.4', '0.1,0.2,0.4', '0.2,0.5,1'))

  def interval(lo: float, hi: float, w: str) -> tuple[str, ...]:
    return f'{RULE}=interval', f'sample.guidance.lo={lo}', f'sample.guidance.hi={hi}', w

  found = {
    PLAIN: (f'{AXIS}=0,0.1,0.3,1,2',),
    'interval, call 3 of 6': interval(-5, -2, f'{AXIS}=0.1,0.3'),
    'interval, call 4 of 6': interval(-2, 1, little),
    'interval, call 5 of 6': interval(1, 5, f'{AXIS}=0.5,1,2'),
    'interval, calls 3 and 4': interval(-5, 1, few),
    'interval, calls 4 and 5': interval(-2, 5, little),
    'interval, calls 3 to 5': interval(-5, 5, few),
    'adaptive, θ = 0.98': (f'{RULE}=adaptive', 'sample.guidance.theta=0.98', few),
    'adaptive, θ = 0.99': (f'{RULE}=adaptive', 'sample.guidance.theta=0.99', few),
  }
  for name, tenths in WEAK.items():
    step = tenths * (num_steps // 10)
    guide = f'sample.guidance.guide={run}', f'sample.guidance.guide_step={step}'
    found[f'autoguidance, {name}'] = ('sample.guidance.pair=autoguidance', *guide, more)
  ddim = ('sample.sampler.name=ddim', 'sample.sampler.grid=edm', 'sample.sampler.num_steps=6')
  found['cfg_pp, by DDIM'] = (*ddim, f'{RULE}=cfg_pp', f'{AXIS}=0.6,0.8,1')
  found['classifier_free, by DDIM'] = (*ddim, f'{AXIS}=0,0.1,0.4')
  ddpm = ('sample.sampler.name=ddpm', *ddim[1:])
  found['feedback, by DDPM'] = (*ddpm, f'{RULE}=feedback', f'{AXIS}=0.4,1')
  found['classifier_free, by DDPM'] = (*ddpm, f'{AXIS}=0.4,1')
  found['contrast, from class 0'] = ('sample.guidance.pair=contrast', few)
  for rule in ('rescale', 'apg', 'cfg_zero', 'tcfg', 'linear', 'cosine', 'beta'):
    found[rule] = (f'{RULE}={rule}', few)
  return {name: (*COMMON, *axes) for name, axes in found.items()}


class Way(NamedTuple):
  """One way to guide: its curve over w, and the network calls a step of a guided image."""

  name: str
  curve: Curve  # the mean of the seeds
  calls: float
  alone: float  # the same where each image is drawn by itself

  @property
  def guided(self) -> np.ndarray:
    """Which points of the curve are guided."""
    return np.flatnonzero(self.curve.x != 0)

  @property
  def best(self) -> int:
    """The guided point of least distance."""
    return int(min(self.guided, key=lambda i: self.curve.values(self.curve.distance)[i]))


def read(workdir: Path, config: ml_collections.ConfigDict) -> list[Way]:
  """What the sweep has found so far, plain guidance first. UserError where there is nothing."""
  results = cells.read(workdir, AXIS)
  found = []
  for name, axes in ways(_run(workdir), config.train.num_steps).items():
    [run] = grid.runs_of(config, grid.parse(axes, config))
    paths = {p.path for s in run.samplings for p in sample_sets(s.config.sample, s.step)}
    n = config.sample.num_samples
    own = [c for c in results.cells if c['samples'] in paths and c['n'] == n]
    if len(own) < len(paths):
      continue
    [curve] = curves(results, AXIS, own)
    of_way = run.samplings[0].config
    if of_way.sample.guidance.rule == 'adaptive':
      calls, alone = count(of_way, workdir / run.name, float(curve.x[curve.x != 0][0]))
    else:
      calls = alone = cost.image_calls(of_way, float(curve.x[-1])) / len(_visited(of_way))
    found.append(Way(name, curve, calls, alone))
  return found


def count(config: ml_collections.ConfigDict, workdir: Path, w: float) -> tuple[float, float]:
  """Network calls a step of adaptive guidance, counted: of images drawn together, and of one."""
  mesh, seen = sharding.data_mesh(jax.devices()[:1]), []
  _, params = load_params(config, workdir, None, mesh)
  network, num = unet.of(config), COUNTED
  indices = np.arange(num, dtype=np.int32)
  classes = registry.of(config.data).num_classes
  c = kinds.choose(config.sample.labels, config.sample.seed, indices, classes)

  def counting(towards, away, z, lam, memory, **knobs):
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), rules.alone(rule, lam, memory, knobs))
    return rule(towards, away, z, lam, memory, **knobs)

  rule, sampler = rules.RULES[config.sample.guidance.rule], config.sample.sampler
  knobs = drawing.knobs(config, np.full(num, w, np.float32))

  @jax.jit
  def draw(params, keys):
    eps_fn = unet.eps_fn(network, params)
    pair = pairs.null(eps_fn, conditioning.given(jnp.asarray(c)))
    model = guidance.guide(pair, counting, **knobs)
    lam, own = samplers.grid_of(sampler, **dict(config.diffusion)), samplers.settings_of(sampler)
    return samplers.sample_model(model, keys, network.image_shape, lam, **own)

  jax.block_until_ready(draw(params['network'], drawing.sample_keys(config.sample.seed, indices)))
  jax.effects_barrier()
  alone = np.stack(seen)  # (calls, images): whether the second pass is left out
  return float(2 - alone.all(axis=1).mean()), float(2 - alone.mean())


def _visited(config):
  ends = config.diffusion
  return samplers.visited(config.sample.sampler, ends.lambda_min, ends.lambda_max)


def _run(workdir: Path) -> Path:
  return workdir / 'p_uncond=0.1'


def apart(way: Way, i: int, other: Way, j: int) -> noise.Difference:
  """The distance of one way at its point i less that of another at j, from the same noises.

  The error is the spread of the seeds, or, if that is more, what redrawn samples tell.
  """
  name = way.curve.distance
  (a, b), at = (way.curve, other.curve), (i, j)
  if not (a.members and b.members):
    error = math.hypot(a.error(name)[i], b.error(name)[j])
    return noise.Difference(float(a.values(name)[i] - b.values(name)[j]), error)
  by_seed = ([m.values(name)[k] for m in c.members] for c, k in zip((a, b), at))
  value, error, bound = frontiers.difference(*by_seed)
  if all(name in c.deviations for c in (a, b)):
    moved = a.deviations[name][:, i] - b.deviations[name][:, j]
    by_image = float(np.sqrt(np.mean(moved**2)))
    if by_image > error:
      error, bound = by_image, 2.0  # of many redrawn sets
  return noise.Difference(value, error, bound)


def findings(found: Sequence[Way]) -> list[str]:
  """The page in words."""
  plain = found[0]
  name, at = plain.curve.distance, plain.best
  least = told(plain.curve.values(name)[at], plain.curve.error(name)[at])
  gain = apart(plain, 0, plain, at)
  lines = [
    f'Plain guidance: least {name} {least} at w = {plain.curve.x[at]:g}, in {plain.calls:.3g} '
    f'network calls a step; no guidance, in 1, is {frontiers.words(gain)} from it.'
  ]
  others = [(way, apart(way, way.best, plain, at)) for way in found[1:]]
  cheap = [(way, d) for way, d in others if way.calls <= MOST]
  reach = [(way, d) for way, d in cheap if d.value <= 0]
  if reach:
    lines.append(f'In {MOST:g} calls a step or fewer, this reaches it:')
  else:
    lines.append(f'In {MOST:g} calls a step or fewer, none reaches it; the nearest is')
  for way, d in reach or sorted(cheap, key=lambda pair: pair[1].value)[:1]:
    lines.append(f'  {_at_best(way)}: {frontiers.words(d)} from plain guidance.')
  if others:
    way, d = min(others, key=lambda pair: pair[1].value)
    lines.append(f'The least of all is {_at_best(way)}: {frontiers.words(d)}.')
  for what, sign in (('less', -1), ('more', 1)):
    said = '; '.join(way.name for way, d in others if d.clear and d.value * sign > 0) or 'none'
    lines.append(f'Least {name} that is {what} than plain guidance’s by more than noise: {said}.')
  for way in found:
    if way.alone != way.calls:
      lines.append(
        f'{way.name}: {way.alone:.3g} network calls a step for an image drawn by itself, '
        f'{way.calls:.3g} where {COUNTED} are drawn together, since all of them must agree.'
      )
  return lines


def _at_best(way: Way) -> str:
  name, i = way.curve.distance, way.best
  least = told(way.curve.values(name)[i], way.curve.error(name)[i])
  return f'{way.name}, {name} {least} at w = {way.curve.x[i]:g}, {way.calls:.3g} calls a step'


def table(found: Sequence[Way]) -> str:
  """Markdown: what each way has at its least distance, by calls a step."""
  plain, name = found[0], found[0].curve.distance
  columns = (name, 'IS', 'precision', 'recall')
  lines = [f'| | calls a step | at w | {" | ".join(columns)} | {name} less plain guidance’s |']
  lines.append('|---' * (len(columns) + 4) + '|')
  for way in sorted(found, key=lambda way: way.calls):
    i, c = way.best, way.curve
    numbers = ' | '.join(told(c.values(k)[i], c.error(k)[i]) for k in columns)
    d = apart(way, i, plain, plain.best)
    beside = '' if way is plain else told(*d[:2])
    lines.append(f'| {way.name} | {way.calls:.3g} | {c.x[i]:g} | {numbers} | {beside} |')
  return '\n'.join(lines) + '\n'


def draw(found: Sequence[Way], path: Path) -> None:
  """Three charts: IS over the distance, recall over precision, the least distance over calls."""
  plain = found[0].curve
  name = plain.distance
  own, least = [], []
  for j, way in enumerate(found):
    c, i = way.curve, [way.best]
    own.append(Line(way.name, {'w': c.x} | c.metrics, j, errors=c.errors))
    values = {'w': c.x[i], CALLS: np.array([way.calls]), name: c.values(name)[i]}
    least.append(Line(way.name, values, j, errors={name: c.error(name)[i]}))
  unguided = {'w': plain.x[:1], CALLS: np.ones(1), name: plain.values(name)[:1]}
  least.append(Line('no guidance', unguided, None, errors={name: plain.error(name)[:1]}))
  with charts.style(**{'font.size': 10}):
    figure = Figure(figsize=(13, 6), layout='constrained')
    axes = figure.subplots(1, 3)
    for ax, frame in zip(axes, frontiers.frames(name)):
      charts.draw(ax, own, frame)
    charts.draw(axes[2], least, Frame(CALLS, name, 'w'))
    at = found[0].best
    value, error = plain.values(name)[at], plain.error(name)[at]
    axes[2].axhspan(value - error, value + error, color=charts.LIGHT['soft'], alpha=0.15)
    axes[2].axvline(MOST, color=charts.LIGHT['soft'], linestyle=(0, (3, 2)), linewidth=1)
    axes[2].set_title('the least of each; band: plain guidance’s', fontsize=9)
    named = axes[2].get_legend_handles_labels()
    figure.legend(*named, frameon=False, fontsize=8, ncols=5, loc='outside lower left')
    figure.savefig(path, dpi=90, metadata={'Software': None})


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given, workdir = flags.FLAGS, Path(flags.FLAGS.workdir).absolute()
  num_steps = command.config_of_file().train.num_steps
  kept = f'train.checkpoint_every={num_steps // 10}', 'train.keep_checkpoints=20'
  given.set = [SAMPLES, *given.set, *kept]
  grids = ways(_run(workdir), num_steps)
  if max(steps.steps_on_disk(_run(workdir)), default=0) < num_steps:
    sweep.sweep(grids=[grids[PLAIN]])  # trains what the last of the ways are guided by
  sweep.sweep(grids=list(grids.values()))
  found = read(workdir, command.config_of_file())
  path = workdir / 'guidance_lab.png'
  draw(found, path)
  frontiers.tell(path, findings(found), f'\n{table(found)}')


def define_flags() -> None:
  """A sweep's flags."""
  sweep.define_flags('digits')


if __name__ == '__main__':
  define_flags()
  command.run(main)
