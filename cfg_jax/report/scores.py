"""scores.jsonl: what runs make of held-out images: how often right, or in how many bits."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from cfg_jax.core import evals
from cfg_jax.report.cells import is_number
from cfg_jax.report.told import told

FILE = 'scores.jsonl'
QUARTER = ' in quarter {} of λ'


def name_of(field: str) -> str:
  """A field's name for a reader: `top_1_quarter_4` is 'top-1 in quarter 4 of λ'.

  `bits_per_dim_T_null` is 'bits per dim, T steps, without class'.
  """
  name, _, quarter = field.partition('_quarter_')
  name = name.replace('_T', ', T steps').replace('_null', ', without class')
  name = re.sub(r'_(?=\d)', '-', name).replace('_', ' ')
  return name + (QUARTER.format(quarter) if quarter else '')


def table(runs: Mapping[str, Path]) -> dict | None:
  """`columns`, and a row of text for each line of the runs' scores; None where there are none.

  UserError where a file is damaged.
  """
  found = [(run, line) for run, folder in runs.items() for line in evals.read(folder / FILE)]
  found = [(run, line) for run, line in found if isinstance(line.get('metrics'), dict)]
  if not found:
    return None
  metrics = list(dict.fromkeys(k for _, line in found for k in line['metrics']))
  rows = [
    [run, *(str(line.get(k, '')) for k in ('step', 'images', 'n')), *_values(line, metrics)]
    for run, line in found
  ]
  return {'columns': ['run', 'step', 'images', 'n', *map(name_of, metrics)], 'rows': rows}


def _values(line: dict, metrics: list[str]) -> list[str]:
  errors = line.get('errors') or {}
  values = [(line['metrics'].get(k), errors.get(k, math.nan)) for k in metrics]
  return [told(value, error) if is_number(value) else '' for value, error in values]
