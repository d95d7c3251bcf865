"""What the classes of a data set are called, without opening it."""

from pathlib import Path

from cfg_jax.core import files
from cfg_jax.core.errors import UserError


def class_names(name: str, data_dir: str | Path) -> list[str]:
  """The names of the classes of a prepared data set, in order; none where it has none.

  TFDS keeps them beside the data, one a line. The digits have none.
  """
  try:
    found = sorted((files.expand(data_dir) / name).glob('*.*.*/label.labels.txt'))
    return found[-1].read_text(encoding='utf-8').rstrip('\n').split('\n') if found else []
  except (OSError, ValueError, UserError):
    return []


def named(label: int, names: list[str]) -> str:
  """The name of a class, its number where it has none."""
  return names[label] if 0 <= label < len(names) else str(label)
