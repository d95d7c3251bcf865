"""Kingma et al. 2021, Variational Diffusion Models: its tables of CIFAR-10 and ImageNet, as data.

Bits per dimension; `ours` is empty where nobody has run it with this code. Table 2's train_steps
and evaluate_steps are T, inf being continuous time.
"""

import csv
from importlib import resources

TABLES = {
  'bits_per_dim': 'table1_bits_per_dim.csv',
  'steps': 'table2_cifar10_steps.csv',
  'variance': 'variance_cifar10_schedules.csv',
}


def rows(table: str) -> list[dict[str, str]]:
  """The rows of one of `TABLES`, by column."""
  with (resources.files(__package__) / TABLES[table]).open(encoding='utf-8', newline='') as f:
    return list(csv.DictReader(f))
