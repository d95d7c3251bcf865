"""A run directory of version 1 becomes one of today: its samples' folders and evals.jsonl.

(Its config and checkpoints are read as they are: see `core.versions`.)
"""

from pathlib import Path
from typing import Any

from cfg_jax.core import config as config_lib
from cfg_jax.core import evals, files
from cfg_jax.core.errors import UserError
from cfg_jax.core.versions import VERSION
from cfg_jax.generate import identity


def upgrade(workdir: Path) -> None:
  """Upgrades a run on disk, if it is of version 1; whatever else is there is left alone.

  It can be killed and called again at any time. Raises UserError where a line of evals.jsonl lacks
  a field.
  """
  path = Path(workdir) / 'evals.jsonl'
  lines = evals.read(path)
  for folder in Path(workdir).glob('samples/*/*,labels=*,seed=*/w=*'):
    settings = _settings_of_folder(folder)
    new = Path(workdir) / identity.path(settings)
    new.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / 'identity.json').exists():
      files.write_json(folder / 'identity.json', settings)
    grid = folder.parent / 'grid.png'
    if grid.exists():
      grid.rename(new.parent / 'grid.png')
    folder.rename(new)
    for emptied in (folder.parent, folder.parent.parent):
      if not any(emptied.iterdir()):
        emptied.rmdir()
  if any('version' not in line for line in lines):
    seed = config_lib.of_run(workdir).seed if (Path(workdir) / 'config.json').exists() else None
    try:
      lines = [line if 'version' in line else _line(line, seed) for line in lines]
    except KeyError as error:
      raise UserError(f'{path}: a line lacks {error}; move the file away.') from None
    evals.write(path, lines)


def _settings_of_folder(folder: Path) -> dict[str, Any]:
  """The settings in a path of version 1: step=8,ema/T=4,v=0.3,clip,labels=…,seed=0/w=1."""
  step, weights = folder.parent.parent.name.split(',')
  num_steps, v, clip, labels, seed = folder.parent.name.split(',')

  def value(text: str) -> str:
    return text.partition('=')[2]

  return _settings(
    step=int(value(step)),
    ema=weights == 'ema',
    num_steps=int(value(num_steps)),
    v=float(value(v)),
    clip_x=clip == 'clip',
    labels=value(labels),
    seed=int(value(seed)),
    w=float(value(folder.name)),
  )


def _settings(step, ema, num_steps, v, clip_x, labels, seed, w) -> dict[str, Any]:
  sampler = {'name': 'ddpm', 'grid': 'paper', 'num_steps': num_steps, 'v': v, 'clip_x': clip_x}
  guidance = {'pair': 'null', 'rule': 'classifier_free', 'w': w}
  sample = {'sampler': sampler, 'guidance': guidance, 'labels': labels, 'ema': ema, 'seed': seed}
  return {'step': step, 'sample': sample}


def _line(line: dict[str, Any], seed: int | None) -> dict[str, Any]:
  """A line of evals.jsonl in today's fields."""
  old = dict(line)
  names = ('step', 'ema', 'v', 'clip_x', 'labels', 'seed', 'w')
  settings = _settings(num_steps=old.pop('T'), **{name: old.pop(name) for name in names})
  method = {'name': 'classifier_free', 'p_uncond': old.pop('p_uncond')}
  metrics = old.pop('metrics')
  first = {'version': VERSION, 'run': old.pop('run'), 'dataset': old.pop('dataset')}
  first |= {'seed': seed, 'step': settings['step']}
  first |= {'settings': {'method': method, 'sample': settings['sample']}}
  old['samples'] = identity.path(settings)
  distance = next((k for k in metrics if k in ('FID-50k', 'FID') or k.startswith('FD')), None)
  return first | old | {'distance': distance, 'metrics': metrics}
