"""Likelihoods of runs of method vdm: bits per dimension over T and by λ, variance, guided samples.

  python -m experiments.bits_per_dim --workdir RUN [--out bits_per_dim.png] [--num_images 200]
  python -m experiments.bits_per_dim --workdir SWEEP

Prints, of held-out images where not said otherwise, each ± one standard error, and draws the first
three:
  bits per dimension as a model of T steps, evenly spaced in t;
  nats per unit of λ, whose area is the diffusion loss;
  the variance of one estimate of the diffusion loss, from one t and one ε, in bits per dimension,
    under the run's own schedule and under λ linear in t between the same ends (the paper, on
    CIFAR-10: 0.53 against 6.35);
  samples at each w that the run has, rounded to the data's levels, given their class and not.
Of a sweep, all of the first model, and of the others, which were trained at a finite T or with
another schedule, the first and the third.
"""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from absl import flags

from cfg_jax import methods
from cfg_jax.core import command, sharding
from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import restore_params
from cfg_jax.core.errors import UserError
from cfg_jax.data import batches, registry
from cfg_jax.data.batches import Batch
from cfg_jax.equations import bound, conditioning, gamma
from cfg_jax.generate.store import sample_sets
from cfg_jax.methods import likelihood, vdm
from cfg_jax.methods.likelihood import Measure

STEPS = (4, 8, 16, 32, 64, 128, 256, None)
WITH = {'bits_per_dim': 'given the class', 'bits_per_dim_null': 'without'}
DRAWS = 32  # estimates of an image's diffusion loss, for its variance


class Trained:
  """A run's EMA, with what its bound needs."""

  def __init__(self, workdir: Path):
    """Reads the newest checkpoint; UserError where the run is of another method."""
    self.config = config = config_lib.of_run(workdir)
    if config.method.name != 'vdm':
      raise UserError(f'--workdir={workdir} is a run of {config.method.name}: give one of vdm.')
    mesh = sharding.data_mesh(jax.local_devices()[:1])
    abstract = methods.abstract_params(config, mesh)
    self.step, self.params = restore_params(abstract, workdir, None, mesh)
    self.dataset, module = registry.of(config.data), vdm.network(config)
    self.apply = module.apply_fn(module.of(config))
    self.shrink = bound.shrink(config.method.levels)
    self.levels = self.shrink * self.dataset.level_values(config.method.levels)
    self.ends = -config.diffusion.lambda_max, -config.diffusion.lambda_min

  def eps_fn(self, z, lam, cond):
    """ε̂ of the network."""
    return self.apply(self.params['network'], z, lam, cond)

  def gamma_fn(self, t):
    """Its own schedule."""
    return gamma.gamma(self.params.get('schedule', {}), t, self.ends)

  def linear(self, t):
    """λ linear in t between the ends of its schedule."""
    low, high = self.gamma_fn(jnp.zeros(())), self.gamma_fn(jnp.ones(()))
    return low + (high - low) * t

  def scores(self, batch: Batch, num_steps: int | None) -> dict[str, np.ndarray]:
    """`likelihood.scores` of images, whose x is shrunk already; none is classified."""

    @jax.jit
    def scored(batch, keys):
      measures = {'': Measure(self.gamma_fn, num_steps)}
      given = self.levels, measures, self.config.method.p_uncond, 0
      return likelihood.scores(self.eps_fn, batch, keys, *given)

    return jax.device_get(scored(batch, jax.random.split(jax.random.key(0), len(batch.x))))

  def estimates(self, batch: Batch, gamma_fn) -> tuple[np.ndarray, ...]:
    """λ, the diffusion loss from one t and ε, bits per dimension, and its rate: (DRAWS, B) each."""

    @jax.jit
    def draw(key):
      k_t, k_eps = jax.random.split(key)
      eps = jax.random.normal(k_eps, batch.x.shape)
      rates = bound.rates(gamma_fn, bound.times(k_t, len(batch.x)), None)
      nats = bound.diffusion_loss(self.eps_fn, batch.x, batch.cond, eps, *rates)
      return -rates[0], bound.bits_per_dim(nats, batch.x.shape[1:]), rates[1]

    found = [draw(key) for key in jax.random.split(jax.random.key(1), DRAWS)]
    return tuple(np.stack(part) for part in zip(*found))


def held_out(trained: Trained, n: int) -> Batch:
  """The first n held-out images."""
  _, source = registry.open_held_out(trained.config.data)
  batch = batches.of_examples([source[i] for i in range(min(n, len(source)))])
  return Batch(trained.shrink * jnp.asarray(batch.x), batch.cond)


def of_samples(trained: Trained, workdir: Path, n: int) -> dict[float, Batch]:
  """The run's samples by w, rounded to the levels of the data."""
  found = {}
  for sample_set in sample_sets(trained.config.sample, trained.step):
    if len(sample_set.present(workdir)) < n:
      continue
    images, labels = next(iter(sample_set.read(workdir, n, batch_size=n)))
    x = trained.shrink * batches.to_x(images)
    nearest = np.argmin(np.abs(x[..., None] - trained.levels), axis=-1)
    cond = conditioning.given(jnp.asarray(labels))
    found[sample_set.w] = Batch(jnp.asarray(np.float32(trained.levels)[nearest]), cond)
  return found


def told(values: np.ndarray) -> str:
  """Mean ± standard error."""
  return f'{np.mean(values):.3f} ± {error(values):.3f}'


def error(values: np.ndarray) -> float:
  """The standard error of the mean."""
  return np.std(values) / math.sqrt(len(values))


def models(workdir: Path) -> dict[str, Path]:
  """The run there, or each model of a sweep, the plainest first, by what sets it apart."""
  if (workdir / 'config.json').exists():
    return {'': workdir}
  folders = sorted((path.parent for path in workdir.glob('*/config.json')), key=lambda p: p.name)
  if not folders:
    raise UserError(f'--workdir={workdir} is neither a run nor a sweep of runs: train one first.')
  common = folders[0].name.split(',')
  apart = [[part for part in path.name.split(',') if part not in common] for path in folders]
  return {','.join(parts): path for parts, path in zip(apart, folders)}


def write_bits(ax, trained: Trained, batch: Batch, name: str) -> None:
  """Prints and draws bits per dimension over T; of another model than the first, by its name."""
  of_name = name and f', {name}'
  print(f'bits per dimension of {len(batch.x)} held-out images, as a model of T steps{of_name}')
  curves = {}
  for num_steps in STEPS:
    found = trained.scores(batch, num_steps)
    print(f'  T = {num_steps or "∞"}: ' + ', '.join(f'{k} {told(v)}' for k, v in found.items()))
    for key in WITH.keys() & found.keys():
      if not (name and key.endswith('null')):  # one curve for each of the others
        curves.setdefault(key, []).append((np.mean(found[key]), error(found[key])))
  for key, points in sorted(curves.items()):
    (*means, limit), (*errors, _) = zip(*points)
    label = f'{WITH[key]}{of_name}'
    [line, *_] = ax.errorbar(STEPS[:-1], means, errors, marker='o', markersize=3, label=label)
    ax.axhline(limit, linestyle='--', linewidth=1, color=line.get_color())


def write_variance(ax, ax_by_lam, trained: Trained, batch: Batch, name: str) -> None:
  """Prints the variance of one estimate, and draws the schedule; of the first model, loss by λ."""
  print('variance of one estimate of the diffusion loss, bits per dimension')
  schedules = {'its own schedule' + (name and f', {name}'): trained.gamma_fn}
  if not name:
    schedules['linear schedule'] = trained.linear
  for label, gamma_fn in schedules.items():
    lam, bits, rate = trained.estimates(batch, gamma_fn)
    print(f'  {label}: {bits.var():.4f}, mean {told(bits.mean(0))}')
    t = np.linspace(0, 1, 101)
    ax.plot(t, -np.asarray(gamma_fn(jnp.asarray(t))), label=f'{label}: {bits.var():.2f}')
    if not name:
      order = np.argsort(lam.ravel())
      by_lam = [part.mean() for part in np.array_split(lam.ravel()[order], 24)]
      per_lam = [p.mean() for p in np.array_split((bits / rate).ravel()[order], 24)]
      ax_by_lam.plot(by_lam, per_lam, label=label)


def write_samples(trained: Trained, workdir: Path, n: int) -> None:
  """Prints what the run's samples cost."""
  print('samples, rounded to the data’s levels, in continuous time')
  for w, drawn in of_samples(trained, workdir, n).items():
    found = trained.scores(drawn, None)
    names = [k for k in found if k.startswith('bits')]
    print(f'  w = {w:g}: ' + ', '.join(f'{k} {told(found[k])}' for k in names))
    if len(names) == 2:  # log2 p(x|c)/p(x), of all dimensions
      gain = (found[names[1]] - found[names[0]]) * math.prod(drawn.x.shape[1:])
      print(f'           log2 p(x|c)/p(x): {told(gain)}')


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS
  runs = models(Path(given.workdir))
  trained = {name: Trained(path) for name, path in runs.items()}
  Path(given.out).parent.mkdir(parents=True, exist_ok=True)
  figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout='constrained')
  for name, model in trained.items():
    batch, finite = held_out(model, given.num_images), model.config.method.num_steps
    if finite or not name:
      write_bits(axes[0], model, batch, name)
    if not finite or not name:
      write_variance(axes[2], axes[1], model, batch, name)
    if not name:
      write_samples(model, runs[name], given.num_images)
  axes[0].set_xscale('log', base=2)
  axes[0].set(title='held-out images, and T = ∞ (dashed)', xlabel='T', ylabel='bits per dimension')
  axes[1].set(title='diffusion loss, λ drawn by either schedule', xlabel='λ')
  axes[1].set_ylabel('bits per dimension and unit of λ')
  axes[2].set(title='schedule, and the variance of one estimate', xlabel='t', ylabel='λ')
  for ax in axes:
    ax.legend(fontsize=8)
  figure.savefig(given.out, dpi=120)
  print(given.out)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A run of method vdm, or a sweep of such.', required=True)
  flags.DEFINE_string('out', 'bits_per_dim.png', 'The picture to write.')
  flags.DEFINE_integer('num_images', 200, 'How many held-out images, and samples of each w.')
  command.run(main)
