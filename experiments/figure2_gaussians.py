"""The paper's Figure 2, and what Algorithm 2 and weighted particles draw: 2-D, exact, no network.

  python -m experiments.figure2_gaussians --out figure2.png

Three classes, equally likely, are isotropic Gaussians. Top: the mixture of the guided conditionals
p̃(x|c) ∝ p(x|c) p(c|x)^w, solved on a grid. Middle: samples guided with the exact ε(z, λ, c)
and ε(z, λ). The two agree at w = 0 only: the ε̃ of noise level λ tilts q(z_λ|c) by the classifier
of that level, and these tilted densities are no diffusion of p̃. The samples land farther out, and
with more steps they do so all the same. Bottom: the same sampler, with particles that are weighted
and resampled (`guidance.smc`), draws from p̃.
"""

import functools
import textwrap
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.colors import to_rgb

from cfg_jax.core import command as cli
from cfg_jax.core.errors import UserError
from cfg_jax.equations import conditioning, guidance, mixture, samplers
from cfg_jax.equations.guidance import pairs, smc
from cfg_jax.equations.guidance.rules import classifier_free

# The paper gives no numbers for its figure. These overlap visibly at w = 0.
RADIUS, STD = 1.2, 1.0
_ANGLES = np.deg2rad([90, 210, 330])
MEANS = RADIUS * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)  # (3, 2)
NUM_CLASSES = len(MEANS)
W = (0.0, 0.5, 1.0, 2.0, 4.0)
NUM_STEPS, V = 256, 0.3
SAMPLES_PER_CLASS = 2000
PARTICLES = 20_000  # a class, of which as many are shown
AXIS = np.linspace(-9, 9, 721)  # beyond the plots, so as to cover the mass
GRID = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2)
COLORS = ('#0072b2', '#e69f00', '#cc3377')
exact_eps = functools.partial(mixture.exact_eps, means=MEANS, std=STD)  # (z, lam, cond) → ε


def tilted_densities(x: np.ndarray, w: float) -> np.ndarray:
  """p̃(x|c) ∝ p(x|c) p(c|x)^w at the points of an even grid, each normalised to sum to 1 over it.

  x: (N, 2) that covers the mass; w ≥ 0. Returns float64 (3, N). Section 3.
  """
  log_p = -np.sum((x - MEANS[:, None]) ** 2, axis=-1) / (2 * STD**2)  # log p(x|c) + constant
  log_tilted = log_p + w * (log_p - np.logaddexp.reduce(log_p, axis=0))
  tilted = np.exp(log_tilted - log_tilted.max(axis=1, keepdims=True))
  return tilted / tilted.sum(axis=1, keepdims=True)


@functools.partial(jax.jit, static_argnames='num_steps')
def draw(keys: jax.Array, c: jax.Array, w: jax.Array, num_steps: int = NUM_STEPS) -> jax.Array:
  """Algorithm 2 with the exact ε, guided, unclipped. keys, c, w: (B,). Returns (B, 2)."""
  model = guidance.guide(pairs.null(exact_eps, conditioning.given(c)), classifier_free, w=w)
  grid = samplers.lambda_grid(num_steps)
  return samplers.sample_model(model, keys, (2,), grid, sampler='ddpm', clip_x=False, v=V)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _particles(w: jax.Array, particles: int, shown: int) -> tuple[smc.Particles, jax.Array]:
  keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(NUM_CLASSES))
  c = jnp.repeat(jnp.arange(NUM_CLASSES), particles)
  pair, grid = pairs.null(exact_eps, conditioning.given(c)), samplers.lambda_grid(NUM_STEPS)
  found = smc.draw(pair, keys, (2,), grid, w=w, particles=particles, v=V)
  return found, smc.pick(keys, found, shown)


class Weighted(NamedTuple):
  """Particles of all classes: x (N, 2), of c (N,), with weights (N,) of mean 1.

  effective: their least effective number along the path, of a class's, before any was resampled;
  shown: samples (n, 2) drawn by weight, of classes shown_c.
  """

  x: np.ndarray
  c: np.ndarray
  weights: np.ndarray
  effective: float
  shown: np.ndarray
  shown_c: np.ndarray


def weigh(
  w: float, particles: int = PARTICLES, samples_per_class: int = SAMPLES_PER_CLASS
) -> Weighted:
  """Algorithm 2, as in `draw`, for so many particles of each class, weighted towards p̃."""
  found, shown = _particles(w, particles, samples_per_class)
  c, shown_c = (np.repeat(np.arange(NUM_CLASSES), n) for n in (particles, samples_per_class))
  x, shown = (np.asarray(a).reshape(-1, 2) for a in (found.x, shown))
  weights = np.exp(np.asarray(found.log_weights)).ravel()
  return Weighted(x, c, weights, float(found.effective.min()), shown, shown_c)


def radial(x: np.ndarray, c: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
  """Mean and standard deviation along the direction of the class's mean, for weighted points.

  x: (N, 2); c: (N,) integers; weights: (N,).
  """
  along = np.sum(x * MEANS[c], axis=-1) / RADIUS
  mean = np.average(along, weights=weights)
  return mean, np.sqrt(np.average((along - mean) ** 2, weights=weights))


class Column(NamedTuple):
  """The figure at one w: p̃ on GRID, (3, N), guided samples of classes c, and those of p̃.

  exact, drawn, right: `radial` of each.
  """

  w: float
  densities: np.ndarray
  samples: np.ndarray
  c: np.ndarray
  exact: tuple[float, float]
  drawn: tuple[float, float]
  weighted: Weighted
  right: tuple[float, float]


def solve(
  w: float, samples_per_class: int = SAMPLES_PER_CLASS, particles: int = PARTICLES
) -> Column:
  """p̃ and samples at w ≥ 0, whose noise is the same for every w."""
  densities = tilted_densities(GRID, w)
  c = np.arange(NUM_CLASSES * samples_per_class) % NUM_CLASSES
  keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(len(c)))
  samples = np.asarray(draw(keys, c, np.full(len(c), w, np.float32)))
  grid_c = np.repeat(np.arange(NUM_CLASSES), len(GRID))
  exact = radial(np.tile(GRID, (NUM_CLASSES, 1)), grid_c, densities.reshape(-1))
  drawn = radial(samples, c, np.ones(len(c)))
  weighted = weigh(w, particles, samples_per_class)
  right = radial(weighted.x, weighted.c, weighted.weights)
  return Column(w, densities, samples, c, exact, drawn, weighted, right)


def paint(column: Column, top, middle, bottom, densest: float) -> None:
  """Draws p̃ on the axes `top`, where the density `densest` is full ink, and samples below."""
  colors = np.array([to_rgb(color) for color in COLORS])
  shape = (len(AXIS), len(AXIS))
  ink = (column.densities / densest).reshape(NUM_CLASSES, *shape, 1)
  picture = np.prod(1 - ink * (1 - colors[:, None, None]), axis=0)
  top.imshow(picture, origin='lower', extent=2 * (AXIS[0], AXIS[-1]), interpolation='bilinear')
  weighted = column.weighted
  below = ((middle, column.samples, column.c), (bottom, weighted.shown, weighted.shown_c))
  for axes, samples, c in below:
    axes.scatter(*samples.T, s=2.2, c=colors[c], alpha=0.45, linewidths=0)
  for density, color in zip(column.densities, colors):
    ranked = np.sort(density)[::-1]
    level = ranked[np.searchsorted(np.cumsum(ranked), 0.9)]  # the region that holds 90 %
    for axes, *_ in below:
      axes.contour(AXIS, AXIS, density.reshape(shape), [level], colors=[0.6 * color], linewidths=1)
  numbers = column.exact, column.drawn, column.right
  for axes, (mean, std) in zip((top, middle, bottom), numbers):
    label = axes.text(0, -4, f'{mean:.2f} ± {std:.2f}', ha='center', fontsize=9)
    label.set_bbox({'facecolor': 'white', 'edgecolor': 'none', 'pad': 1.5, 'alpha': 0.85})
    axes.plot(*MEANS.T, '+', color='black', markersize=6, markeredgewidth=1)
    axes.set(xlim=(-4.8, 4.8), ylim=(-4.35, 5.25), xticks=[], yticks=[], aspect='equal')
  top.set_title(f'w = {column.w:g}', fontsize=11)


def write_png(path: Path) -> None:
  """Solves, samples, measures and draws: columns are w, rows p̃ and the samples."""
  import matplotlib

  matplotlib.use('agg')
  import matplotlib.pyplot as plt

  columns = [solve(w) for w in W]
  densest = max(column.densities.max() for column in columns)  # one scale for all w
  figure, rows = plt.subplots(3, len(W), figsize=(12.5, 8.9), sharex=True, sharey=True)
  figure.subplots_adjust(left=0.03, right=0.995, top=0.965, bottom=0.132, wspace=0.03, hspace=0.03)
  for column, *axes in zip(columns, *rows):
    paint(column, *axes, densest)
  rows[0, 0].set_ylabel('exact: p̃(x|c) ∝ p(x|c) p(c|x)$^w$', fontsize=10)
  rows[1, 0].set_ylabel('Algorithm 2 with exact scores', fontsize=10)
  rows[2, 0].set_ylabel('the same, weighted towards p̃', fontsize=10)
  figure.text(0.03, 0.115, caption(columns), fontsize=9.5, va='top', linespacing=1.35)
  figure.savefig(path, format='png', dpi=120, metadata={'Software': None})
  plt.close(figure)


def caption(columns: list[Column]) -> str:
  """What the figure shows and what was measured."""
  last, errors = columns[-1], [c.right[0] / c.exact[0] - 1 for c in columns]
  text = (
    'Top: Figure 2 of the paper, for three Gaussians (+: their means). Middle: '
    f'{SAMPLES_PER_CLASS} guided samples a class (T = {NUM_STEPS}, v = {V:g}), over the outlines '
    'that hold 90 % of each class above. Numbers: mean ± standard deviation along the direction '
    'of the class. These rows agree at w = 0 only: guided samples land farther out '
    f'({last.drawn[0]:.2f} against {last.exact[0]:.2f} at w = {last.w:g}), and more steps do not '
    'change it: to tilt by the classifier of every noise level is not to diffuse p̃. Bottom: the '
    f'same sampler, {PARTICLES} particles a class, weighted by exact ratios of its transitions and '
    f'resampled; its means are off by at most {max(map(abs, errors[:-1])):.1%} up to w = '
    f'{columns[-2].w:g} and by {abs(errors[-1]):.1%} at w = {last.w:g}.'
  )
  return '\n'.join(textwrap.wrap(text, 162))


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  out = Path(flags.FLAGS.out)
  if not out.parent.is_dir():
    raise UserError(f'--out={out} must be in a folder that exists.')
  write_png(out)
  print(out)


if __name__ == '__main__':
  flags.DEFINE_string('out', None, 'The PNG to write.', required=True)
  cli.run(main)
