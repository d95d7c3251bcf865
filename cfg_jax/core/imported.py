"""A run whose weights come from elsewhere: its config, and one checkpoint that holds EMA alone."""

from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.core.errors import UserError


def check_new(workdir: Path) -> None:
  """Raises UserError where the folder has anything in it."""
  if Path(workdir).exists() and any(Path(workdir).iterdir()):
    raise UserError(f'--workdir={workdir} is not empty: name a new one.')


def write(
  config: ml_collections.ConfigDict, step: int, ema: dict[str, Any], workdir: Path, source: dict
) -> None:
  """Makes the run directory, from which `generate` and `evaluate` work, but no training goes on.

  ema: the EMA weights by player, float32, after `step` steps. source: where they are from, as JSON;
  the checkpoint's record keeps it. Raises UserError where Orbax cannot read the path back.
  """
  checkpoints = Checkpoints(workdir, keep=1)
  checkpoints.save(step, jax.device_put({'step': np.int32(step), 'ema': ema}), source)
  checkpoints.close()
  config_lib.record(config, workdir)  # last: without it there is no run
