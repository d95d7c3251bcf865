"""Guides: other runs that guidance asks, named by `sample.guidance.guide`: classifiers so far.

A guide's parameters, the EMA of its newest checkpoint, are a player beside the network's.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from cfg_jax.core import config as config_lib
from cfg_jax.core import files, steps
from cfg_jax.core.checkpoint import restore_params
from cfg_jax.core.config import Problems
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.equations.guidance.pairs import GUIDED
from cfg_jax.methods import classifier
from cfg_jax.nets import encoder


def fitted(guidance: Mapping[str, Any]) -> dict[str, Any]:
  """The section `sample.guidance` with a field for the guide where its pair has one, else none."""
  kept = {k: v for k, v in guidance.items() if k != 'guide'}
  return kept | ({'guide': guidance.get('guide', '')} if guidance.get('pair') in GUIDED else {})


config_lib.FIT['sample.guidance'] = fitted


def folder(config: ml_collections.ConfigDict) -> Path | None:
  """The run that guides the samples of config; None where its pair has no guide."""
  guidance = config.sample.guidance
  return files.expand(guidance.guide) if guidance.pair in GUIDED else None


def load(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """{'guide': parameters}, to be added to the network's, on every device of mesh; or {}.

  Raises UserError where the checkpoint is damaged.
  """
  workdir = folder(config)
  if workdir is None:
    return {}
  network = encoder.of(config_lib.of_run(workdir))
  abstract = {'network': jax.eval_shape(lambda: encoder.create_params(network, 0))}
  _, params = restore_params(abstract, workdir, steps.newest(workdir), mesh)
  return {'guide': params['network']}


def log_probs(config: ml_collections.ConfigDict, params: Mapping[str, Any]) -> tuple[Callable, ...]:
  """What the pair takes beside the network: (log p(c|z_λ),), or nothing. See `pairs.classifier`."""
  workdir = folder(config)
  if workdir is None:
    return ()
  return (classifier.log_prob(config_lib.of_run(workdir), params['guide']),)


def problems(config: ml_collections.ConfigDict) -> Problems:
  """What is wrong with the guide that config names: (field of `sample.guidance`, remedy).

  Its config alone is read, and the names of its checkpoints.
  """
  guidance = config.sample.guidance
  if guidance.pair not in GUIDED:
    if 'guide' in guidance:
      yield 'guide', f'guides nothing: the pair {guidance.pair} has none; leave it out'
    return
  if not guidance.get('guide'):
    yield 'guide', "must name a classifier's run: --set sample.guidance.guide=FOLDER"
    return
  try:
    guide, _ = config_lib.of_run(folder(config)), steps.newest(folder(config))
  except UserError as error:
    yield 'guide', f'cannot guide ({str(error).rstrip(".")})'
    return
  if guide.method.name != 'classifier':
    yield 'guide', f'is a run of {guide.method.name}: name one of configs/classifier_*.py'
    return
  if not guide.method.noised:
    yield 'guide', 'has seen no noise (method.noised=false): train one with method.noised=true'
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
  low, high = classifier.ends_of(guide)
  ends = config.diffusion.lambda_min, config.diffusion.lambda_max
  if ends[0] < low - 1e-3 or ends[1] > high + 1e-3:
    yield (
      'guide',
      f'has seen λ from {low:.4g} to {high:.4g}, and samples are drawn from {ends[0]:.4g} to '
      f'{ends[1]:.4g}: train one for these',
    )
