"""What a pair asks beside the network and the condition, as `sample.guidance` names it.

A guide is another run, or another checkpoint: a classifier, or a weaker network. Its parameters, an
EMA, are a player beside the network's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from cfg_jax.core import config as config_lib
from cfg_jax.core import files, steps
from cfg_jax.core.checkpoint import restore_params
from cfg_jax.core.config import Problems
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.equations import conditioning
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.guidance import rules
from cfg_jax.equations.guidance.pairs import CLASSIFIERS, GUIDED
from cfg_jax.methods import classifier
from cfg_jax.nets import encoder, unet

# Of a section `sample.guidance`, what a pair has beside its name, with the values at first.
FIELDS: dict[str, dict[str, Any]] = {
  **dict.fromkeys(CLASSIFIERS, {'guide': ''}),
  'autoguidance': {'guide': '', 'guide_step': 0},  # 0: the newest checkpoint
  'contrast': {'against': 0},  # a class
}


def fitted(guidance: Mapping[str, Any]) -> dict[str, Any]:
  """The section `sample.guidance` with the fields of its pair and the knobs of its rule alone."""
  own = FIELDS.get(guidance.get('pair'), {})
  others = {name for fields in FIELDS.values() for name in fields}
  return rules.fitted(own | {k: v for k, v in guidance.items() if k not in others - own.keys()})


config_lib.FIT['sample.guidance'] = fitted


def folder(config: ml_collections.ConfigDict) -> Path | None:
  """The run that guides the samples of config; None where its pair has no guide."""
  guidance = config.sample.guidance
  return files.expand(guidance.guide) if guidance.pair in GUIDED else None


def _network(config, workdir):
  """(the config of the guide, its module among `nets`)."""
  classifies = config.sample.guidance.pair in CLASSIFIERS
  return config_lib.of_run(workdir), encoder if classifies else unet


def load(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """{'guide': parameters}, to be added to the network's, on every device of mesh; or {}.

  Raises UserError where the checkpoint is damaged.
  """
  workdir = folder(config)
  if workdir is None:
    return {}
  guide, nets = _network(config, workdir)
  abstract = {'network': jax.eval_shape(lambda: nets.create_params(nets.of(guide), 0))}
  step = steps.of_guide(config.sample.guidance, workdir)
  _, params = restore_params(abstract, workdir, step, mesh)
  return {'guide': params['network']}


def given(
  config: ml_collections.ConfigDict, params: Mapping[str, Any], cond: Cond
) -> tuple[Any, ...]:
  """What the pair takes beside the network and cond: see `pairs`.

  (log p(c|z_λ),) of a classifier, (ε_weak,) of a weaker network, (c',) of a contrast, (C,) of all
  classes, or nothing.
  """
  workdir, pair = folder(config), config.sample.guidance.pair
  if pair == 'classes':
    return (registry.of(config.data).num_classes,)
  if pair == 'contrast':
    return (conditioning.given(jnp.full_like(cond.value, config.sample.guidance.against)),)
  if workdir is None:
    return ()
  guide, _ = _network(config, workdir)
  if pair == 'autoguidance':
    return (unet.eps_fn(unet.of(guide), params['guide']),)
  return (classifier.log_prob(guide, params['guide']),)


def problems(config: ml_collections.ConfigDict) -> Problems:
  """What is wrong with the guide that config names: (field of `sample.guidance`, remedy).

  Its config alone is read, and the names of its checkpoints.
  """
  guidance = config.sample.guidance
  own = FIELDS.get(guidance.pair, {})
  for name in {name for fields in FIELDS.values() for name in fields} - own.keys():
    if name in guidance:
      yield name, f'guides nothing: the pair {guidance.pair} has none; leave it out'
  for name in own:
    if type(guidance.get(name)) is not type(own[name]):
      yield name, f'must be {"text" if own[name] == "" else "a whole number"}'
      return
  if guidance.pair == 'contrast':
    num_classes = registry.of(config.data).num_classes
    if not 0 <= guidance.against < num_classes:
      yield 'against', f'is none of the classes 0 to {num_classes - 1}'
  if guidance.pair == 'classes' and registry.of(config.data).num_classes < 2:
    yield 'pair', f'needs two classes or more, and {config.data.name} has one: use another pair'
  if guidance.pair not in GUIDED:
    return
  classifies = guidance.pair in CLASSIFIERS
  if not guidance.guide:
    what = "a classifier's run" if classifies else 'the run of a weaker network'
    yield 'guide', f'must name {what}: --set sample.guidance.guide=FOLDER'
    return
  try:
    guide, step = config_lib.of_run(folder(config)), steps.of_guide(guidance, folder(config))
  except UserError as error:
    yield 'guide', f'cannot guide ({str(error).rstrip(".")})'
    return
  there = steps.steps_on_disk(folder(config))
  if step not in there:
    yield 'guide_step', f'is none of its checkpoints, {there}: see train.keep_checkpoints'
    return
  if guide.method.name != ('classifier' if classifies else 'classifier_free'):
    remedy = 'one of configs/classifier_*.py' if classifies else 'one of classifier_free'
    yield 'guide', f'is a run of {guide.method.name}: name {remedy}'
    return
  if classifies and not guide.method.noised:
    yield 'guide', 'has seen no noise (method.noised=false): train one with method.noised=true'
    return
  if not classifies and guide.method.p_uncond == 1:
    yield 'guide', 'has never seen classes (method.p_uncond=1): name another'
    return
  own, its = registry.of(config.data), registry.of(guide.data)
  if own.image_shape != its.image_shape:
    shapes = ('×'.join(map(str, x.image_shape)) for x in (its, own))
    yield 'guide', 'has images of {}, the network {}: name another'.format(*shapes)
  elif own.num_classes != its.num_classes or config.data.name != guide.data.name:
    yield (
      'guide',
      f'knows the {its.num_classes} classes of {guide.data.name}, not the {own.num_classes} of '
      f'{config.data.name}: train one on {config.data.name}',
    )
    return
  low, high = (
    classifier.ends_of(guide)
    if classifies
    else (guide.diffusion.lambda_min, guide.diffusion.lambda_max)
  )
  ends = config.diffusion.lambda_min, config.diffusion.lambda_max
  if ends[0] < low - 1e-3 or ends[1] > high + 1e-3:
    yield (
      'guide',
      f'has seen λ from {low:.4g} to {high:.4g}, and samples are drawn from {ends[0]:.4g} to '
      f'{ends[1]:.4g}: train one for these',
    )
