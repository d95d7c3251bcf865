"""Layouts of configs and checkpoints: the present one, and how those of older runs become it."""

import copy
from typing import Any

from cfg_jax.core.errors import UserError

VERSION = 2


def migrate(config: dict[str, Any], where: str) -> dict[str, Any]:
  """A config of any version, as plain dicts, in the present layout.

  where: the file it is from. Raises UserError where it is newer than this code, or no config.
  """
  version = config.get('version', 1)
  if version not in (1, VERSION):
    raise UserError(f'{where} has version={version!r}; this cfg_jax reads 1 to {VERSION}.')
  if version == VERSION:
    return config
  try:
    return _from_1(copy.deepcopy(config))
  except KeyError as error:
    raise UserError(f'{where} lacks the field {error}; see configs/digits.py.') from None


def _from_1(config):
  """Version 1 had one method, one sampler and one rule, and their settings in `train`, `sample`."""
  train, sample = config['train'], config['sample']
  # Fields that came later, and what was done without them.
  config['train'] = {'microbatches': 1, 'shard_optimizer': False, 'sample_every': 0} | train
  method = {'name': 'classifier_free', 'p_uncond': config['train'].pop('p_uncond')}
  sampler = {'name': 'ddpm', 'grid': 'paper'}
  sampler |= {name: sample.pop(name) for name in ('num_steps', 'v', 'clip_x')}
  guidance = {'pair': 'null', 'rule': 'classifier_free', 'w': sample.pop('w')}
  sample = {'sampler': sampler, 'guidance': guidance} | sample
  return {'version': VERSION} | config | {'method': method, 'sample': sample}


def old_array_name(name: str) -> str:
  """What version 1, which had no players, called an array of a checkpoint."""
  return name.replace('.network', '', 1)
