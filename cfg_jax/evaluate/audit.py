"""checkpoint → audits.jsonl: how much a network's two predictions know of the class, by λ.

No samples are drawn: see `equations.guidance.information`. A network whose two predictions are
right finds I(x; c), at most ln C nats for C classes: more shows that they differ by their errors.
"""

import math
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core.checkpoint import restore_params
from cfg_jax.core.errors import UserError
from cfg_jax.core.progress import Progress
from cfg_jax.core.versions import VERSION
from cfg_jax.data import prepared, registry
from cfg_jax.equations.guidance import information
from cfg_jax.evaluate import each_image

FILE = 'audits.jsonl'
IMAGES = 500  # at most, unless it is said
BINS = 64  # of λ, of one length
BATCH = 100
SHARE = 0.8
RESAMPLINGS = 200  # of the images, for the errors of the band


def audit(
  config: ml_collections.ConfigDict, workdir: Path, step: int | None, num_images: int | None
) -> dict:
  """Adds to workdir/audits.jsonl a line of the newest intact checkpoint, or that of `step`.

  Of num_images of the training images, evenly spread. The line, which is returned, has `metrics`
  (`information` in nats, by how far the predictions are apart, the ends `low`, `high` of the
  shortest band of λ with 80 % of it, and `gain`, by how much less the loss is with the class),
  their standard errors `errors`, and `profile`: nats for dλ in each bin, `density`, with `errors`.
  What is there already is not computed again. Raises UserError where the network has not learnt
  both predictions, there are fewer images, or config is not the run's.
  """
  workdir = Path(workdir)
  config_lib.check_unchanged(config, workdir / 'config.json')
  p = config.method.p_uncond
  if p in (0, 1):
    unknown = '∅' if p == 0 else 'classes'
    raise UserError(
      f'method.p_uncond={p:g}: this network has never seen {unknown}: audit a run with 0 < p < 1.'
    )
  source = registry.open_source(config.data)
  n = min(IMAGES, len(source)) if num_images is None else num_images
  if not 2 <= n <= len(source):
    raise UserError(
      f'--num_samples={n}: {config.data.name} has {len(source)} images: use 2 to that.'
    )
  mesh, weights = sharding.data_mesh(), 'ema' if config.sample.ema else 'params'
  abstract = methods.abstract_params(config, mesh)
  step, params = restore_params(abstract, workdir, step, mesh, weights)
  line = {'version': VERSION, 'run': workdir.resolve().name, 'step': step, 'weights': weights}
  line |= {'dataset': config.data.name, 'n': n, 'bins': BINS, 'seed': each_image.SEED}
  line['fingerprint'] = prepared.fingerprint(source)
  line['classes'] = registry.of(config.data).num_classes

  def measured():
    ends = config.diffusion.lambda_min, config.diffusion.lambda_max
    edges = np.linspace(*ends, BINS + 1)
    network = methods.network(config)

    def profile(params, batch, keys):
      eps_fn = network.eps_fn(network.of(config), params['network'])
      bins = jnp.asarray(edges, jnp.float32)
      return information.profile(eps_fn, keys, batch.x, batch.cond, bins)

    progress = Progress('audit', n, unit='images', compiles=True)
    which = np.arange(n) * len(source) // n
    found = each_image.values(profile, params, source, which, BATCH, progress)
    return measure(information.Profile(*(a.astype(np.float64) for a in found)), edges)

  return each_image.once(workdir / FILE, line, measured)


def measure(found: information.Profile, edges: np.ndarray) -> dict[str, dict]:
  """`metrics`, `errors` and `profile`, as `audit` has them, of N images in M bins."""
  values, n, rng = found.apart, len(found.apart), np.random.default_rng(each_image.SEED)
  of_images, gains = values @ np.diff(edges), found.gain @ np.diff(edges)
  low, high = information.band(values.mean(0), edges, SHARE)
  again = [
    information.band(values[rng.integers(n, size=n)].mean(0), edges, SHARE)
    for _ in range(RESAMPLINGS)
  ]
  low_error, high_error = np.std(again, axis=0).tolist()
  metrics = {'information': float(of_images.mean()), 'gain': float(gains.mean())}
  errors = [float(np.std(x) / math.sqrt(n)) for x in (of_images, gains)]
  return {
    'metrics': metrics | {'low': low, 'high': high},
    'errors': dict(zip(metrics, errors)) | {'low': low_error, 'high': high_error},
    'profile': {
      'edges': edges.tolist(),
      'density': values.mean(0).tolist(),
      'errors': (values.std(0) / math.sqrt(n)).tolist(),
    },
  }


def told(line: dict) -> str:
  """A line of audits.jsonl as text."""
  metrics, errors, profile = line['metrics'], line['errors'], line['profile']
  head = f'{line["run"]}, step {line["step"]}: {line["n"]} images of {line["dataset"]}'
  rows = [f'{head}, {line["bins"]} λ each', '   λ              nats for dλ']
  most = max(profile['density'])
  for low, high, value, error in zip(
    profile['edges'], profile['edges'][1:], profile['density'], profile['errors']
  ):
    if value >= 0.005 * most:
      bar = '▇' * round(30 * value / most)
      rows.append(f'  {low:6.2f} to {high:6.2f}  {value:.4f} ± {error:.4f}  {bar}')
  found, error = metrics['information'], errors['information']
  bound = math.log(line['classes'])
  rows.append(
    f'In all {found:.3f} ± {error:.3f} nats; ln {line["classes"]} = {bound:.3f} is the most that '
    'there can be.'
  )
  if found - 2 * error > bound:
    rows.append('It is more: the predictions with ∅ and with the class differ by their errors too.')
  gain, error = metrics['gain'], errors['gain']
  text = f'With the class the loss is less by {gain:.3f} ± {error:.3f} nats'
  more = gain - 2 * error > bound
  rows.append(
    f'{text}: at least {gain - bound:.3f} of them are lost by errors with ∅.'
    if more
    else f'{text}; right predictions have the same number twice.'
  )
  rows.append(
    f'{SHARE:.0%} lie in {metrics["low"]:.2f} ± {errors["low"]:.2f} ≤ λ < {metrics["high"]:.2f} ± '
    f'{errors["high"]:.2f}.'
  )
  return '\n'.join(rows)
