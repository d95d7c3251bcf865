"""Dhariwal & Nichol 2021, Section 4: a classifier p(c|z_λ) of noisy images, which guides samplers.

With method.noised=false it sees images as they are: an ordinary classifier.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cfg_jax.core import fields
from cfg_jax.core import state as train_state
from cfg_jax.core.config import Context, Problems
from cfg_jax.core.fields import Field
from cfg_jax.core.update import descent, make_optimizer
from cfg_jax.equations import conditioning, diffusion, objectives, schedules
from cfg_jax.methods.method import Method, by_quarter
from cfg_jax.nets import encoder

NETWORK = encoder
DRAWS = False
# The λ that images are noised to: the paper's p(λ), or ADM's thousand times, equally likely.
TIMES = ('paper', 'adm_linear', 'adm_cosine')


def make(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Method:
  """The method of a config, whose step runs on the devices of the mesh.

  Randomness is as for `classifier_free.make`.
  """
  network, method = encoder.of(config), config.method
  apply, optimizers = encoder.apply_fn(network), {'network': make_optimizer(config.train)}
  ends, settings = ends_of(config), {'seed': np.uint32(config.seed)}

  def init(seed):
    params = {'network': encoder.create_params(network, seed)}
    return train_state.create(params, optimizers)

  def draw_noisy(key, batch):
    k_lam, k_eps = jax.random.split(key)
    n = batch.x.shape[:1]
    if not method.noised:
      lam = jnp.full(n, ends[1])
    elif method.times == 'paper':
      lam = diffusion.log_snr(jax.random.uniform(k_lam, n), *ends)
    else:
      table = jnp.asarray(_adm_lambdas(method.times), jnp.float32)
      lam = table[jax.random.randint(k_lam, n, 0, len(table))]
    return noisy_at(k_eps, batch, lam)

  def noisy_at(key, batch, lam):
    if not method.noised:
      return objectives.Noisy(batch.x, lam, batch.cond, jnp.zeros_like(batch.x))
    eps = jax.random.normal(key, batch.x.shape, batch.x.dtype)
    return objectives.Noisy(diffusion.diffuse(batch.x, eps, lam), lam, batch.cond, eps)

  def losses(params, noisy, keys):
    logits, _ = apply(params['network'], noisy.z, noisy.lam, keys if network.dropout else None)
    return objectives.cross_entropies(logits, noisy.cond)

  descend = descent(losses, optimizers, config.train, mesh)

  def step(state, batch, settings=settings):
    key = jax.random.fold_in(jax.random.key(settings['seed']), state.step)
    k_noise, k_net = jax.random.split(key)
    noisy = draw_noisy(k_noise, batch)
    keys = jax.random.split(k_net, len(batch.x))
    state, each, metrics = descend(state, noisy, keys)
    if method.noised:
      metrics |= by_quarter(each, noisy.lam, *ends)
    return state, metrics

  def loss(params, batch, key):
    k_noise, k_net = jax.random.split(key)
    keys = jax.random.split(k_net, len(batch.x))
    return jnp.mean(losses(params, draw_noisy(k_noise, batch), keys))

  def right(params, noisy):
    """Whether the class is the likeliest (B,), and among the five likeliest (B,), as numbers."""
    logits, _ = apply(params['network'], noisy.z, noisy.lam)
    own = jnp.take_along_axis(logits, noisy.cond.value[:, None], axis=1)
    above = jnp.sum(logits > own, axis=1)
    return {f'top_{k}': (above < k).astype(jnp.float32) for k in (1, 5)}

  def noise(key, x, quarter):
    """A λ of the quarter, all equally likely, and ε, of one image."""
    k_lam, k_eps = jax.random.split(jax.random.fold_in(key, quarter))
    lam = ends[0] + (ends[1] - ends[0]) * (quarter + jax.random.uniform(k_lam)) / 4
    return lam, jax.random.normal(k_eps, x.shape, x.dtype)

  def score(params, batch, keys):
    if not method.noised:
      return right(params, noisy_at(keys[0], batch, jnp.full(len(batch.x), ends[1])))
    found = {}
    for quarter in range(4):
      lam, eps = jax.vmap(noise, (0, 0, None))(keys, batch.x, quarter)
      noisy = objectives.Noisy(diffusion.diffuse(batch.x, eps, lam), lam, batch.cond, eps)
      found |= {f'{k}_quarter_{quarter + 1}': x for k, x in right(params, noisy).items()}
    return found

  return Method(init, loss, step, None, score, settings)


def log_prob(config: ml_collections.ConfigDict, params: dict) -> Callable:
  """(z (B, …), lam (B,), c (B,)) → log p(c|z_λ), float32 (B,), of the classifier of a config.

  params: of its network.
  """
  apply = encoder.apply_fn(encoder.of(config))

  def log_prob(z, lam, c):
    logits, _ = apply(params, z, lam)
    return -objectives.cross_entropies(logits, conditioning.given(c))

  return log_prob


def ends_of(config: ml_collections.ConfigDict) -> tuple[float, float]:
  """The least and the greatest λ that the classifier is trained at."""
  if config.method.times == 'paper':
    return config.diffusion.lambda_min, config.diffusion.lambda_max
  lam = _adm_lambdas(config.method.times)
  return float(lam.min()), float(lam.max())


@functools.cache
def _adm_lambdas(times: str):
  return schedules.ddpm_lambdas(times.removeprefix('adm_'))


FIELDS = {'name': Field(str), 'noised': Field(bool), 'times': Field(str)}


def problems(method: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `method`: (field, remedy)."""
  wrong = dict(fields.problems(method, FIELDS))
  yield from wrong.items()
  if 'times' not in wrong and method.times not in TIMES:
    yield 'times', f'is none of {", ".join(TIMES)}'
  if context.config.get('train', {}).get('sample_every'):
    yield 'name', 'draws no samples: set train.sample_every=0'
