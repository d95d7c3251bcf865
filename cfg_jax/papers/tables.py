"""The paper's own tables, as data: Table 1 (ImageNet 64×64) and Table 2 (ImageNet 128×128)."""

import csv
from importlib import resources
from typing import NamedTuple

# Data set → its table, the field whose values are the table's columns, and v (Section 4).
TABLES = {
  'imagenet64': ('table1_imagenet64.csv', 'Table 1', 'p_uncond', 'p', 0.3),
  'imagenet128': ('table2_imagenet128.csv', 'Table 2', 'T', 'T', 0.2),
}


class Baseline(NamedTuple):
  """Another model's FID and IS, from the same table."""

  model: str
  fid: float
  inception_score: float


class PaperCurve(NamedTuple):
  """One column of a table: FID and IS of 50 000 samples for each w, at `field` = `value` and v."""

  table: str
  field: str
  value: float
  v: float
  w: tuple[float, ...]
  fid: tuple[float, ...]
  inception_score: tuple[float, ...]


def curves(dataset: str) -> tuple[PaperCurve, ...]:
  """The paper's curves for a data set by its name here; none where the paper has none."""
  if dataset not in TABLES:
    return ()
  file, table, field, letter, v = TABLES[dataset]
  rows = _rows(file)

  def column(name: str) -> tuple[float, ...]:
    return tuple(float(row[name]) for row in rows)

  heads = [name.removeprefix('fid_') for name in rows[0] if name.startswith('fid_')]
  return tuple(
    PaperCurve(
      table,
      field,
      float(head.removeprefix(letter)),
      v,
      column('w'),
      column(f'fid_{head}'),
      column(f'is_{head}'),
    )
    for head in heads
  )


def baselines(dataset: str) -> tuple[Baseline, ...]:
  """The other models that the table of a data set names with both FID and IS."""
  number = TABLES[dataset][1].removeprefix('Table ') if dataset in TABLES else None
  return tuple(
    Baseline(row['model'], float(row['fid']), float(row['is']))
    for row in _rows('baselines.csv')
    if row['table'] == number and row['is']
  )


def _rows(file: str) -> list[dict]:
  with (resources.files('cfg_jax.papers') / 'cfg' / file).open(encoding='utf-8', newline='') as f:
    return list(csv.DictReader(f))
