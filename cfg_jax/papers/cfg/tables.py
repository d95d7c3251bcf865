"""The paper's own tables, as data: Table 1 (ImageNet 64×64) and Table 2 (ImageNet 128×128)."""

import csv
import json
import math
from importlib import resources
from typing import NamedTuple

from cfg_jax.report.study import Published


class Table(NamedTuple):
  """A file; the field whose values are its columns, and the paper's name for it; v (Section 4)."""

  file: str
  name: str
  field: str
  symbol: str
  v: float


# By the data set's name here.
TABLES = {
  'imagenet64': Table('table1_imagenet64.csv', 'Table 1', 'method.p_uncond', 'p_uncond', 0.3),
  'imagenet128': Table('table2_imagenet128.csv', 'Table 2', 'sample.sampler.num_steps', 'T', 0.2),
}

# What a curve of ours must have, too, to stand beside the paper's: its method and its way to
# measure, images resized as TensorFlow 1 does. That the distance is called
# FID-50k says the rest.
SETTINGS = {
  'method.name': 'classifier_free',
  'sample.sampler.name': 'ddpm',
  'sample.sampler.grid': 'paper',
  'sample.guidance.pair': 'null',
  'sample.guidance.rule': 'classifier_free',
  'resize': 'tf1',
}
DISTANCE = 'FID-50k'


class Baseline(NamedTuple):
  """Another model's FID and IS, from the same table."""

  model: str
  fid: float
  inception_score: float


class PaperCurve(NamedTuple):
  """One column of a table: FID and IS of 50 000 samples for each w, at `field` = `value` and v."""

  table: Table
  value: float
  w: tuple[float, ...]
  fid: tuple[float, ...]
  inception_score: tuple[float, ...]


def curves(dataset: str) -> tuple[PaperCurve, ...]:
  """The paper's curves for a data set by its name here; none where the paper has none."""
  if dataset not in TABLES:
    return ()
  table = TABLES[dataset]
  rows = _rows(table.file)

  def column(name: str) -> tuple[float, ...]:
    return tuple(float(row[name]) for row in rows)

  heads = [name.removeprefix('fid_') for name in rows[0] if name.startswith('fid_')]
  values = [json.loads(head[1:]) for head in heads]  # after a letter: p0.1, T256
  return tuple(
    PaperCurve(table, value, column('w'), column(f'fid_{head}'), column(f'is_{head}'))
    for head, value in zip(heads, values)
  )


def published(dataset: str, distance: str) -> list[Published]:
  """The paper's curves and the points of other models of a data set; none for another distance."""
  if distance != DISTANCE:
    return []
  ours = [
    Published(
      name=f'paper, {c.table.symbol} = {c.value:g}',
      table=c.table.name,
      column={c.table.field: c.value},
      settings={c.table.field: c.value, 'sample.sampler.v': c.table.v} | SETTINGS,
      x=c.w,
      metrics={DISTANCE: c.fid, 'IS': c.inception_score},
    )
    for c in curves(dataset)
  ]
  others = [
    Published(
      name=b.model,
      table=TABLES[dataset].name,
      column={},
      settings={},
      x=(math.nan,),
      metrics={DISTANCE: (b.fid,), 'IS': (b.inception_score,)},
    )
    for b in baselines(dataset)
  ]
  return ours + others


def baselines(dataset: str) -> tuple[Baseline, ...]:
  """The other models that the table of a data set names with both FID and IS."""
  number = TABLES[dataset].name.removeprefix('Table ') if dataset in TABLES else None
  return tuple(
    Baseline(row['model'], float(row['fid']), float(row['is']))
    for row in _rows('baselines.csv')
    if row['table'] == number and row['is']
  )


def _rows(file: str) -> list[dict]:
  with (resources.files(__package__) / file).open(encoding='utf-8', newline='') as f:
    return list(csv.DictReader(f))
