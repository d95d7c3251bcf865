"""Config files: Python, executed, whose mistakes are told by file and line."""

import importlib.util
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import ml_collections

from cfg_jax.core import config as config_lib
from cfg_jax.core.errors import UserError

T = TypeVar('T')


def read(path: str | Path) -> ml_collections.ConfigDict:
  """What `get_config()` of a Python file returns, locked; UserError where it cannot be read."""
  loaded = module(path)
  config = _told(path, loaded.get_config)
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f'--config={path} has a get_config() that returns no ConfigDict; see configs/digits.py.'
    )
  resolved = _told(path, lambda: config.copy_and_resolve_references().to_dict())
  return config_lib.of_dict(resolved, str(path))


def module(path: str | Path) -> types.ModuleType:
  """The Python file of a config, executed; UserError where it cannot be, or has no get_config."""
  path = Path(path)
  if not path.is_file():
    raise UserError(f'--config={path} cannot be read; the configs are in configs/.')
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None:
    raise UserError(f'--config={path} is not a Python file; see configs/digits.py.')
  loaded = importlib.util.module_from_spec(spec)
  _told(path, lambda: spec.loader.exec_module(loaded))
  if not hasattr(loaded, 'get_config'):
    raise UserError(f'--config={path} has no get_config(); see configs/digits.py.')
  return loaded


def _told(path, f: Callable[[], T]) -> T:
  """f(), whose errors are the user's own lines'."""
  try:
    return f()
  except Exception as error:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.lineno for frame in frames if frame.filename == str(path)]
    line = own[-1] if own else getattr(error, 'lineno', None)
    where = f', line {line}' if line else ''
    raise UserError(f'--config={path}{where}: {type(error).__name__}: {error}.') from None
