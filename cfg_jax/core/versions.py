"""Layouts of configs and checkpoints: the present one, and how those of older runs become it."""

import copy
import functools
from typing import Any

from cfg_jax.core.errors import UserError

VERSION = 3
SEALED = 3  # the first version whose records carry a digest, see `files.seal`; otherwise 3 is 2
MOVED = {  # fields of version 1, and what they are called since
  'train.p_uncond': 'method.p_uncond',
  'sample.w': 'sample.guidance.w',
  'sample.num_steps': 'sample.sampler.num_steps',
  'sample.v': 'sample.sampler.v',
  'sample.clip_x': 'sample.sampler.clip_x',
}


def migrate(config: dict[str, Any], where: str) -> dict[str, Any]:
  """A config of any version, as plain dicts, in the present layout.

  where: the file it is from. Raises UserError where it is newer than this code, or no config.
  """
  version = config.get('version', 1)
  if version not in range(1, VERSION + 1):
    raise UserError(f'{where} has version={version!r}; this cfg_jax reads 1 to {VERSION}.')
  if version > 1:
    return config | {'version': VERSION}
  try:
    return _from_1(copy.deepcopy(config))
  except KeyError as error:
    raise UserError(f'{where} lacks the field {error}; see configs/digits.py.') from None
  except (TypeError, ValueError, AttributeError) as error:
    raise UserError(f'{where} is no config ({error}); see configs/digits.py.') from None


def _from_1(config):
  """Version 1 had one method, one sampler and one rule, and their settings in `train`, `sample`."""
  sample = {
    'sampler': {'name': 'ddpm', 'grid': 'paper'},
    'guidance': {'pair': 'null', 'rule': 'classifier_free'},
  }
  new = {'version': VERSION} | config | {'method': {'name': 'classifier_free'}}
  # Fields that came later, and what was done without them.
  new['train'] = {'microbatches': 1, 'shard_optimizer': False, 'sample_every': 0} | config['train']
  new['sample'] = sample | config['sample']
  for old, moved in MOVED.items():
    section, name = old.split('.')
    *path, _ = moved.split('.')
    functools.reduce(dict.__getitem__, path, new)[name] = new[section].pop(name)
  guidance = new['sample']['guidance']
  guidance['w'] = [float(w) for w in guidance['w']]  # a flag --config.sample.w=0,1 left integers
  return new


def new_field(field: str) -> str:
  """What a dotted field of any version is called today."""
  return MOVED.get(field, field)


def old_array_name(name: str) -> str:
  """What version 1, which had no players, called an array of a checkpoint."""
  return name.replace('.network', '', 1)
