"""FD and IS over network calls, for every solver on every grid of λ, at w = 0.1 and 1.

  python -m experiments.quality_for_cost --workdir runs/digits [--set sample.num_samples=500]

A sweep (see `cfg_jax.sweep`, whose flags it takes) of the digits' model of p_uncond = 0.1, which it
finds in the work directory or trains. Three seeds of the sampler give the error bars. By arithmetic
500 samples a cell take half an hour on two cores; stopped, it goes on where it was. Ends with
quality_for_cost.png; the report has the same panel.
"""

import itertools

from cfg_jax import papers
from cfg_jax.core import command
from cfg_jax.equations import samplers, schedules
from cfg_jax.report import figures
from cfg_jax.sweep import __main__ as sweep

CALLS = (4, 8, 16)  # of the network, an image and a pass


def grids() -> list[tuple[str, ...]]:
  """The axes of each solver on each grid; a listed grid is nobody's but its user's."""
  made = []
  for solver, grid in itertools.product(samplers.SOLVERS, schedules.GRIDS):
    if grid == 'listed' or solver == 'ddpm_shifted':  # which is for one rule
      continue
    # Heun calls the network twice a step, so that its calls are odd.
    steps = [(n + 2) // 2 if solver == 'heun' else n for n in CALLS]
    made.append(
      (
        'method.p_uncond=0.1',
        f'sample.sampler.name={solver}',
        f'sample.sampler.grid={grid}',
        f'sample.sampler.num_steps={",".join(map(str, steps))}',
        'sample.seed=0,1,2',
        'sample.guidance.w=0.1,1',
      )
    )
  return made


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  workdir = sweep.sweep()
  path = workdir / 'quality_for_cost.png'
  figures.write_cost(workdir, path, papers.DEFAULT.study)
  print(path)


if __name__ == '__main__':
  sweep.define_flags('digits', grids())
  command.run(main)
