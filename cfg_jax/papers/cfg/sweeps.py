"""The paper's experiments as sweeps of our configs, and the columns of its tables."""

from cfg_jax.papers.cfg import tables
from cfg_jax.papers.paper import Column, Sweep

GRID = ('method.p_uncond=0.1,0.2,0.5',)  # Table 1
STEPS = ('sample.sampler.num_steps=128,256,1024',)  # Table 2
EVERY_W = 'sample.guidance.w=' + ','.join(f'{i / 10:g}' for i in range(41))  # Section 4

SWEEPS = {
  'table1': Sweep('imagenet64', GRID),
  'table2': Sweep('imagenet128', STEPS),
  'figure4': Sweep('imagenet64', (*GRID, EVERY_W), 'figure4.png'),
  'figure5': Sweep('imagenet128', (*STEPS, EVERY_W), 'figure5.png'),
}


def columns(dataset: str) -> tuple[Column, ...]:
  """The columns of the table of a data set, by its name here, as fields of its config."""
  return tuple(
    Column(
      f'{c.table.name}, {c.table.symbol} = {c.value:g}',
      {c.table.field: c.value, 'sample.guidance.w': c.w},
    )
    for c in tables.curves(dataset)
  )
