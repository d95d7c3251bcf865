"""Every solver on every grid, at as equal a number of network calls as can be."""

from cfg_jax.equations import samplers, schedules
from cfg_jax.sweep import grid
from experiments import quality_for_cost
from tests.conftest import load_config


def test_every_solver_and_grid_at_the_same_calls_by_three_seeds():
  config = load_config('digits')
  grids = [grid.parse(axes, config) for axes in quality_for_cost.grids()]
  [run] = grid.runs_of(config, *grids)
  found = {}
  for sampling in run.samplings:
    sampler = sampling.config.sample.sampler
    calls, seed = samplers.calls(sampler.to_dict()), sampling.config.sample.seed
    assert sampling.config.sample.guidance.w == (0.1, 1.0)
    found.setdefault((sampler.name, sampler.grid), set()).add((calls, seed))
  assert found.keys() == {
    (s, g) for s in {*samplers.SOLVERS} - {'ddpm_shifted'} for g in {*schedules.GRIDS} - {'listed'}
  }
  for (solver, _), cells in found.items():
    odd = solver == 'heun'  # two calls a step, and one at the end
    assert cells == {(n + odd, seed) for n in quality_for_cost.CALLS for seed in (0, 1, 2)}
