"""Published results of ADM's ancestral sampler and DDIM, without and with classifier guidance.

Of Dhariwal & Nichol 2021: Table 4 (256×256), and the rows of Table 5 that are ADM's own or guided,
whose scales are in Table 14; `source` says which. Not published are the Inception Score at 64×64
and 128×128, and any result of guidance at 64×64, for which Table 14 does name a scale, 1.0. (The
2.07 that guided-diffusion's README has there is the unguided network's with dropout.) Of Table 5
only FID is here, with the precision and recall that the README repeats.
"""

import csv
from importlib import resources
from typing import NamedTuple


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
