"""What the classes of a data set are called, without opening it."""

from pathlib import Path


def class_names(name: str, data_dir: Path) -> list[str]:
  """The names of the classes of a prepared data set, in order; none where it has none.

  TFDS keeps them beside the data, one a line. The digits have none.
  """
  files = sorted((Path(data_dir) / name).glob('*.*.*/label.labels.txt'))
  try:
    return files[-1].read_text(encoding='utf-8').rstrip('\n').split('\n') if files else []
  except (OSError, ValueError):
    return []


def named(label: int, names: list[str]) -> str:
  """The name of a class, its number where it has none."""
  return names[label] if 0 <= label < len(names) else str(label)
