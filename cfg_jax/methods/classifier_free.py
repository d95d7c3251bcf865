"""Ho & Salimans, Classifier-Free Diffusion Guidance: Algorithm 1 trains, Algorithm 2 draws."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cfg_jax.core import config as config_lib
from cfg_jax.core import fields
from cfg_jax.core import state as train_state
from cfg_jax.core.config import Context, Problems
from cfg_jax.core.fields import Field
from cfg_jax.core.update import descent, make_optimizer
from cfg_jax.data import registry
from cfg_jax.equations import objectives, samplers
from cfg_jax.methods import likelihood, sampling
from cfg_jax.methods.method import Method, by_quarter
from cfg_jax.nets import unet

NETWORK = unet  # whose configs, parameters and functions these are
DRAWS = True


def make(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Method:
  """The method of a config, whose step runs on the devices of the mesh.

  All randomness of training comes from config.seed and state.step, so a resumed run repeats it
  exactly. It is drawn for the whole batch, so that neither the devices of the mesh nor
  train.microbatches change any sample's λ, ε, condition or dropped units.
  """
  network = unet.of(config)
  apply, optimizers = unet.apply_fn(network), {'network': make_optimizer(config.train)}
  ends = dict(config.diffusion)  # lambda_min, lambda_max
  settings = {'seed': np.uint32(config.seed), 'p_uncond': np.float32(config.method.p_uncond)}

  def init(seed):
    return train_state.create({'network': unet.create_params(network, seed)}, optimizers)

  def losses(params, noisy, keys):
    eps_fn = functools.partial(apply, params['network'], keys=keys if network.dropout else None)
    return objectives.losses(eps_fn, noisy)

  def draw_noisy(key, batch, p_uncond):
    return objectives.draw(key, batch.x, batch.cond, p_uncond=p_uncond, **ends)

  def taught(teacher, noisy):
    w = config.method.get('guidance', 0.0)
    if not w:
      return noisy
    return objectives.model_guidance(unet.eps_fn(network, teacher['network']), noisy, w)

  descend = descent(losses, optimizers, config.train, mesh)

  def step(state, batch, settings=settings):  # Algorithm 1
    key = jax.random.fold_in(jax.random.key(settings['seed']), state.step)
    k_loss, k_net = jax.random.split(key)
    noisy = taught(state.ema, draw_noisy(k_loss, batch, settings['p_uncond']))
    keys = jax.random.split(k_net, len(batch.x))
    state, each, metrics = descend(state, noisy, keys)
    metrics |= by_quarter(each, noisy.lam, **ends)
    return state, metrics

  def loss(params, batch, key):
    k_loss, k_net = jax.random.split(key)
    keys = jax.random.split(k_net, len(batch.x))
    noisy = draw_noisy(k_loss, batch, config.method.p_uncond)
    return jnp.mean(losses(params, taught(jax.lax.stop_gradient(params), noisy), keys))

  def draw(params, request):  # Algorithm 2
    eps_fn = unet.eps_fn(network, params['network'])
    lam = samplers.grid_of(config.sample.sampler, **ends)
    return sampling.draw(config, eps_fn, params, request, network.image_shape, lam)

  def score(params, batch, keys):
    measures = {
      '': likelihood.of_ends(**ends),
      '_T': likelihood.of_grid(samplers.grid_of(config.sample.sampler, **ends)),
    }
    eps_fn, dataset = unet.eps_fn(network, params['network']), registry.of(config.data)
    given = dataset.level_values(), measures, config.method.p_uncond, dataset.num_classes
    return likelihood.scores(eps_fn, batch, keys, *given)

  return Method(init, loss, step, draw, score, settings)


FIELDS = {
  'name': Field(str),
  'p_uncond': Field(float, 0, 1, 'is a probability: use 0 to 1; the paper has 0.1, 0.2, 0.5'),
  'guidance': Field(
    float, 0, 20, 'is the w of a pass: use 0, which learns none, to 20', may_lack=True
  ),
}
# w of the guidance that one pass learns: see `objectives.model_guidance`.
config_lib.OPTIONAL['method.guidance'] = 0.0


def problems(method: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `method`: (field, remedy)."""
  del context
  wrong = list(fields.problems(method, FIELDS))
  yield from wrong
  if not wrong and method.get('guidance') and method.p_uncond in (0, 1):
    lacks = '∅' if method.p_uncond == 0 else 'classes'
    yield 'guidance', f'needs {lacks}, never seen at method.p_uncond={method.p_uncond:g}: use 0.1'
