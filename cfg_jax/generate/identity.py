"""What makes a set of samples: all settings that change a picture, and the folder they name."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Of config.sample: how many images there are, and how many are drawn at once, change no image.
NOT_IDENTITY = ('num_samples', 'batch_size')


def settings_of(sample: Mapping[str, Any], step: int, w: float) -> dict[str, Any]:
  """The settings of one set: the checkpoint's step, and `config.sample` with one of its w."""
  kept = {k: v for k, v in sample.items() if k not in NOT_IDENTITY}
  if kept.get('quantisation') == 'round':  # as where it is left out
    del kept['quantisation']
  kept['guidance'] = dict(sample['guidance']) | {'w': float(w)}
  kept['sampler'] = dict(sample['sampler'])
  return {'step': step, 'sample': kept}


def identity(settings: Mapping[str, Any], prefix: str) -> str:
  """A name for settings: a prefix to read, and 8 hex digits of the sha256 of their JSON.

  Settings that differ in anything have different names, by construction: nothing is left out, and
  floats are written with all their digits.
  """
  text = json.dumps(settings, sort_keys=True, separators=(',', ':'), ensure_ascii=False)
  return f'{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'


def group(settings: Mapping[str, Any]) -> str:
  """The folder that sets which differ in w alone have in common."""
  sample = settings['sample']
  guidance = {k: v for k, v in sample['guidance'].items() if k != 'w'}
  sampler = sample['sampler']
  weights = 'ema' if sample['ema'] else 'raw'
  prefix = f'step={settings["step"]},{weights},{sampler["name"]},T={sampler["num_steps"]}'
  without_w = settings | {'sample': sample | {'guidance': guidance}}
  return identity(without_w, f'{prefix},seed={sample["seed"]}')


def path(settings: Mapping[str, Any]) -> str:
  """The folder of one set, relative to the run."""
  w = settings['sample']['guidance']['w']
  return f'samples/{group(settings)}/{identity(settings, f"w={w:g}")}'
