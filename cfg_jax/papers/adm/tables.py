"""Published results of ADM's ancestral sampler and DDIM, without and with classifier guidance.

Of Dhariwal & Nichol 2021: Table 4 (256×256), and the rows of Table 5 that are ADM's own or guided,
whose scales are in Table 14; `source` says which. Not published are the Inception Score at 64×64
and 128×128, and any result of guidance at 64×64, for which Table 14 does name a scale, 1.0. (The
2.07 that guided-diffusion's README has there is the unguided network's with dropout.) Of Table 5
only FID is here, with the precision and recall that the README repeats.
"""

import csv
import math
from importlib import resources
from typing import NamedTuple

from cfg_jax.report.study import Published


class Row(NamedTuple):
  """FID of 50 000 samples, and what else is known of them.

  scale: s of ADM, 0 without guidance; it is w of guidance of a conditional network, and w + 1 of an
  unconditional one. sampler: `ancestral`, or `ddim` of the subset "ddim25". metrics: by our names,
  those of `IS`, `sFID`, `precision`, `recall` that are known, and `FID-50k`.
  """

  source: str
  conditional: bool
  dropout: float  # of the diffusion network
  sampler: str
  steps: int
  scale: float
  metrics: dict[str, float]


DISTANCE = 'FID-50k'
SIZES = {f'imagenet{size}': size for size in (64, 128, 256)}
STEPS = 'sample.sampler.num_steps'
METRICS = {  # the file's name of each, by ours
  'FID-50k': 'fid',
  'sFID': 'sfid',
  'IS': 'is',
  'precision': 'precision',
  'recall': 'recall',
}


def guided(size: int) -> tuple[Row, ...]:
  """What is published of ImageNet size × size, 64, 128 or 256; none for another size."""
  with (resources.files(__package__) / 'guidance.csv').open(encoding='utf-8', newline='') as f:
    return tuple(
      Row(
        row['source'],
        row['conditional'] == '1',
        float(row['dropout']),
        row['sampler'],
        int(row['steps']),
        float(row['scale']),
        {ours: float(row[name]) for ours, name in METRICS.items() if row[name]},
      )
      for row in csv.DictReader(f)
      if int(row['size']) == size
    )


def published(dataset: str, distance: str) -> list[Published]:
  """ADM's rows of a data set by its name here as curves over w, for the report; see `Row.scale`."""
  if distance != DISTANCE or dataset not in SIZES:
    return []
  groups = {}
  for row in guided(SIZES[dataset]):
    key = row.conditional, row.sampler, row.steps, row.dropout
    groups.setdefault(key, []).append(row)
  return [_curve(key, rows) for key, rows in groups.items()]


def _curve(key, rows):
  conditional, sampler, steps, dropout = key
  what = 'conditional' if conditional else 'unconditional'
  dropped = f', dropout {dropout:g}' if dropout else ''
  names = [name for name in METRICS if any(name in row.metrics for row in rows)]
  ancestral = sampler == 'ancestral'
  return Published(
    name=f'ADM, {what}, {"" if ancestral else "DDIM, "}{steps} steps{dropped}',
    table=f'ADM’s {rows[0].source.partition(";")[0]}',
    column={STEPS: steps},
    settings={
      STEPS: steps,
      'method.name': 'classifier_free',
      'sample.guidance.pair': 'classifier' if conditional else 'classifier_unconditional',
      'sample.guidance.rule': 'mean_shift' if ancestral else 'classifier_free',
      'sample.sampler.name': 'ddpm_shifted' if ancestral else 'ddim',
      'resize': 'tf1',
    },
    x=tuple(row.scale if conditional else row.scale - 1 for row in rows),
    metrics={name: tuple(row.metrics.get(name, math.nan) for row in rows) for name in names},
  )
