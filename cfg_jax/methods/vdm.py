"""Kingma et al. 2021, Variational Diffusion Models: the bound trains, and is what is measured.

The players are the network and, if it learns, the schedule γ_η: see `equations.gamma`. The class,
dropped with probability p_uncond, is Ho & Salimans's addition: with p_uncond=1 there is none.
"""

from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from cfg_jax.core import fields
from cfg_jax.core import state as train_state
from cfg_jax.core.config import Context, Problems
from cfg_jax.core.fields import Field
from cfg_jax.core.state import Mean
from cfg_jax.core.update import MOST, descent, make_optimizer
from cfg_jax.data import registry
from cfg_jax.equations import bound, conditioning, gamma, samplers
from cfg_jax.equations.bound import Bound
from cfg_jax.equations.conditioning import Cond
from cfg_jax.methods import likelihood, sampling
from cfg_jax.methods.likelihood import Measure
from cfg_jax.methods.method import Method, by_quarter
from cfg_jax.nets import unet
from cfg_jax.nets import vdm as vdm_net

NETWORKS: dict[str, ModuleType] = {'vdm': vdm_net, 'unet': unet}  # method.network
DRAWS = True
LEARNS_GRID = True  # sample.sampler.grid=learned is the schedule's, evenly spaced in t


class Drawn(NamedTuple):
  """All that is random in the bound of a batch."""

  x: jax.Array  # (B, …), VDM's 2(k + ½)/K − 1
  cond: Cond
  t: jax.Array  # (B,), antithetic
  eps_0: jax.Array  # of z_0
  eps: jax.Array  # of z_t


def make(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Method:
  """The method of a config, whose step runs on the devices of the mesh.

  Randomness is as for `classifier_free.make`. Losses are bits per dimension.
  """
  method, train, module = config.method, config.train, network(config)
  net, dataset = module.of(config), registry.of(config.data)
  apply, shape = module.apply_fn(net), dataset.image_shape
  ends = -config.diffusion.lambda_max, -config.diffusion.lambda_min  # γ_0 and γ_1 at first
  settings = {'seed': np.uint32(config.seed), 'p_uncond': np.float32(method.p_uncond)}
  levels = dataset.level_values(method.levels)
  shrink = bound.shrink(method.levels)
  undecayed = make_optimizer(train, decays=lambda params: jax.tree.map(lambda _: False, params))
  optimizers = {
    'network': make_optimizer(train, decays=_but_biases),
    'schedule': optax.chain(undecayed, optax.scale(method.schedule_rate)),
  }

  def init(seed):
    key = jax.random.fold_in(jax.random.key(seed), 1)
    params = {'network': module.create_params(net, seed)}
    if schedule := gamma.init(key, method.schedule, *ends):
      params['schedule'] = schedule
    return train_state.create(params, optimizers)

  def draw_noise(key, batch, p_uncond):
    k_drop, k_t, k_0, k_eps = jax.random.split(key, 4)
    cond = conditioning.drop(k_drop, batch.cond, p_uncond)
    eps_0, eps = (jax.random.normal(k, batch.x.shape, batch.x.dtype) for k in (k_0, k_eps))
    return Drawn(shrink * batch.x, cond, bound.times(k_t, len(batch.x)), eps_0, eps)

  def diffusion_loss(params, gamma_rate, drawn, keys):
    eps_fn = lambda z, lam, cond: apply(params, z, lam, cond, keys if net.dropout else None)  # noqa: E731
    nats = bound.diffusion_loss(eps_fn, drawn.x, drawn.cond, drawn.eps, *gamma_rate)
    return bound.bits_per_dim(nats, shape)

  def losses(params, drawn, keys):  # equation 11
    schedule = params.get('schedule', {})
    of_ends, of_interior = gamma.rates(schedule, drawn.t, ends, method.num_steps)
    gamma_0, gamma_1 = gamma.at_ends(schedule, ends)
    prior = bound.prior(drawn.x, jnp.full_like(drawn.t, gamma_1))
    gamma_0 = jnp.full_like(drawn.t, gamma_0)
    reconstruction = bound.reconstruction(drawn.x, drawn.eps_0, gamma_0, shrink * levels)
    diffusion = gamma.variance_minimising(diffusion_loss)(
      params['network'], of_ends, of_interior, drawn, keys
    )
    prior, reconstruction = (bound.bits_per_dim(nats, shape) for nats in (prior, reconstruction))
    return Bound(prior, reconstruction, diffusion)

  descend = descent(losses, optimizers, train, mesh)

  def step(state, batch, settings=settings):
    key = jax.random.fold_in(jax.random.key(settings['seed']), state.step)
    k_loss, k_net = jax.random.split(key)
    drawn = draw_noise(k_loss, batch, settings['p_uncond'])
    keys = jax.random.split(k_net, len(batch.x))
    schedule = state.params.get('schedule', {})
    state, each, metrics = descend(state, drawn, keys)
    metrics |= {name: Mean(jnp.mean(part), 1) for name, part in each._asdict().items()}
    for name, end in zip(('gamma_0', 'gamma_1'), gamma.at_ends(schedule, ends)):
      metrics[name] = Mean(end, 1)
    lam = -gamma.rates(schedule, drawn.t, ends, method.num_steps)[0][0]
    metrics |= by_quarter(each.diffusion, lam, **config.diffusion)
    return state, metrics

  def loss(params, batch, key):
    k_loss, k_net = jax.random.split(key)
    keys = jax.random.split(k_net, len(batch.x))
    return jnp.mean(losses(params, draw_noise(k_loss, batch, method.p_uncond), keys).total)

  def eps_fn_of(params):
    return module.eps_fn(net, params['network'])

  def lambdas(params):
    sampler, schedule = config.sample.sampler, params.get('schedule', {})
    if sampler.grid == 'learned':
      return gamma.lambda_grid(schedule, sampler.num_steps, ends)
    return samplers.grid_of(sampler, **config.diffusion)

  def draw(params, request):
    drawn = sampling.draw(config, eps_fn_of(params), params, request, shape, lambdas(params))
    if request.part.until is not None:
      return drawn
    return drawn._replace(x=drawn.x / shrink)

  def score(params, batch, keys):
    schedule = params.get('schedule', {})
    measures = {
      '': Measure(lambda t: gamma.gamma(schedule, t, ends), method.num_steps),
      '_T': likelihood.of_grid(lambdas(params)),
    }
    batch = batch._replace(x=shrink * batch.x)
    given = shrink * levels, measures, method.p_uncond, dataset.num_classes
    return likelihood.scores(eps_fn_of(params), batch, keys, *given)

  return Method(init, loss, step, draw, score, settings)


def network(config: ml_collections.ConfigDict) -> ModuleType:
  """The file of nets/ whose network the config's section `model` is of."""
  return NETWORKS[config.method.network]


def _but_biases(params):
  """Whether each parameter decays: all but biases do."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != 'bias', params)


FIELDS = {
  'name': Field(str),
  'p_uncond': Field(float, 0, 1, 'is a probability: use 0 to 1; 1 has no classes, as VDM'),
  'network': Field(str),
  'schedule': Field(str),
  'schedule_rate': Field(float, 0, 1e3),  # its learning rate, in the network's
  'num_steps': Field(
    int,
    1,
    MOST,
    'must be the number T of steps, at least 1, or none: continuous time',
    optional=True,
  ),
  'levels': Field(int, 2, 256),
}


def problems(method: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `method`: (field, remedy)."""
  wrong = dict(fields.problems(method, FIELDS))
  yield from wrong.items()
  for field, table in (('network', NETWORKS), ('schedule', gamma.SCHEDULES)):
    if field not in wrong and method[field] not in table:
      yield field, f'is none of {", ".join(table)}'
  dataset = registry.find(context.config.data)
  if dataset is not None and 'levels' not in wrong and method.levels not in dataset.level_counts:
    counts = ' or '.join(map(str, dataset.level_counts))
    yield 'levels', f'are not those of {context.config.data.name}: use {counts}'
