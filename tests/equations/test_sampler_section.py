"""The config's section `sample.sampler`: whose field is whose, and what is refused in one line."""

import re

import numpy as np
import pytest

from cfg_jax.equations import diffusion, knobs, samplers, schedules
from cfg_jax.equations.diffusion import Prediction
from tests.equations.test_samplers import keys_of

SECTION = {'name': 'ddim', 'grid': 'edm', 'num_steps': 8, 'clip_x': True}


@pytest.mark.parametrize(
  'changes, field, remedy',
  [
    ({'name': 'euler'}, 'name', 'is none of ddpm, ddpm_shifted, ddim, heun, dpmpp'),
    ({'grid': 'karras'}, 'grid', 'is none of paper, linear, cosine, edm'),
    ({'num_steps': 1}, 'num_steps', 'must be at least 2'),
    ({'v': 0.3}, 'v', 'is no knob of ddim or edm or clip, which has eta, sigma_min'),
    ({'grid': 'paper', 'rho': 7.0}, 'rho', 'is no knob of ddim or paper'),
    ({'eta': 1.5}, 'eta', r'must be in \[0, 1\]'),
    ({'eta': float('nan')}, 'eta', r'must be in \[0, 1\]'),
    ({'eta': 'much'}, 'eta', 'must be of the type of 0.0'),
    ({'grid': 'linear', 'num_steps': 45, 'subset': 'stride'}, 'num_steps', 'try 44'),
    ({'name': 'dpmpp', 'order': 3}, 'order', 'is none of 1, 2'),
    ({'name': 'dpmpp', 'order': True}, 'order', 'must be of the type of 2'),
    ({'name': 'dpmpp', 'num_steps': 2}, 'num_steps', 'no history for order 2'),
    ({'clip_x': False, 'quantile': 0.995}, 'quantile', 'set clip_x=true'),
    ({'quantile': 2.0}, 'quantile', r'must be in \[0, 1\]'),
    ({'name': 'heun', 's_churn': -1.0}, 's_churn', 'at least 0'),
    ({'grid': 'edm', 'sigma_max': 1e6}, 'grid', 'not trained'),
  ],
)
def test_bad_sections_are_one_line(changes, field, remedy):
  ends = {'lambda_min': -20.0, 'lambda_max': 20.0}
  assert list(samplers.problems(SECTION, ends)) == []
  [(found, text)] = samplers.problems(SECTION | changes, ends)
  assert found == field and '\n' not in text and re.search(remedy, text), text


def test_a_learned_grid_is_of_a_network_that_has_one():
  section = samplers.fitted({'name': 'ddim', 'grid': 'learned', 'num_steps': 5, 'clip_x': True})
  ends = {'lambda_min': -5.0, 'lambda_max': 13.0}
  assert not list(samplers.problems(section, ends, True))
  assert [field for field, _ in samplers.problems(section, ends)] == ['grid']
  few = [field for field, _ in samplers.problems(section | {'num_steps': 1}, ends, True)]
  assert few == ['num_steps']
  np.testing.assert_allclose(samplers.visited(section, **ends), np.linspace(-5, 13, 5))
  with pytest.raises(ValueError, match='grid=.learned. is of a network that has learned'):
    samplers.lambda_grid(5, 'learned')


def test_no_two_knobs_of_one_section_have_one_name():
  """Fields of `sample.sampler` go to the grid or the solver by name alone."""
  for solver in samplers.SOLVERS.values():
    for grid in schedules.GRIDS.values():
      names = [
        *samplers.COMMON,
        *(n for f in (solver, grid, samplers.clip) for n in knobs.names(f)),
      ]
      assert len(set(names)) == len(names)


def test_sample_takes_the_knobs_of_both():
  def eps_fn(z, lam):
    return 0.5 * z

  keys = keys_of(np.arange(4))
  settings = dict(num_steps=6, sampler='ddim', eta=0.5, grid='edm', rho=5.0, quantile=0.9)
  a = samplers.sample(eps_fn, keys, (3,), **settings)
  lam = samplers.lambda_grid(6, 'edm', rho=5.0)

  def model(z, lam, memory):
    eps = eps_fn(z, lam)
    return Prediction(diffusion.predict_x(z, eps, lam), eps), memory

  settings = dict(sampler='ddim', clip_x=True, eta=0.5, quantile=0.9)
  b = samplers.sample_model(model, keys, (3,), lam, **settings)
  np.testing.assert_array_equal(a, b)
