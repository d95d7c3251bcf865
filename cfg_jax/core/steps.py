"""Which checkpoints a run has, and what is in them by its digest. Without JAX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cfg_jax.core import files
from cfg_jax.core.errors import UserError


def steps_on_disk(workdir: Path) -> list[int]:
  """The steps of a run's finished checkpoints, intact or not, in increasing order."""
  folders = (Path(workdir) / 'checkpoints').glob('*')
  return sorted(int(folder.name) for folder in folders if folder.name.isdigit())


def newest(workdir: Path) -> int:
  """The step of the newest one; UserError where there is none."""
  steps = steps_on_disk(workdir)
  if not steps:
    raise UserError(f'{workdir} has no checkpoint: train first.')
  return steps[-1]


def of_guide(guidance: Mapping[str, Any], workdir: Path) -> int:
  """The step of the checkpoint that guides, by `guide_step` of the section `sample.guidance`.

  The newest one where that is 0 or left out; UserError where there is none.
  """
  return guidance.get('guide_step') or newest(workdir)


def ema_digest(workdir: Path, step: int) -> str:
  """The first 16 hex digits of `ema_sha256`."""
  return ema_sha256(workdir, step)[:16]


def ema_sha256(workdir: Path, step: int) -> str:
  """What names a checkpoint's EMA: of the digests of its arrays, which its record has.

  UserError where the record is damaged.
  """
  path = Path(workdir) / 'checkpoints' / str(step) / 'record' / 'metadata'
  try:
    digests = files.unseal(files.read_json(path), must=False)['digests']
    return files.digest({k: v for k, v in digests.items() if k.startswith('ema.')})
  except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
    raise UserError(f'{path} is damaged ({error!r}): remove this checkpoint.') from None
