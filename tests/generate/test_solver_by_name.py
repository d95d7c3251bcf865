"""Another solver or grid, by name: its knobs come with it, on every command and in every record."""

import json

import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core.errors import UserError
from cfg_jax.equations import samplers
from cfg_jax.generate import __main__ as generate
from cfg_jax.methods.owners import OWNERS
from cfg_jax.plan import cost
from cfg_jax.sweep import grid
from cfg_jax.train import loop as train
from tests.conftest import load_config

OF_DPMPP = {'order': 2, 'singlestep': False, 'sde': False, 'quantile': 0.0}
OF_EDM = {'sigma_min': 0.02, 'sigma_max': 50.0, 'rho': 7.0}


ALGORITHM_2 = {
  'sample.sampler.name': 'ddpm',
  'sample.sampler.grid': 'paper',
  'sample.sampler.num_steps': 12,
}


def changed(*texts):
  config = load_config('digits', **ALGORITHM_2)
  return config_lib.change(config, [f'sample.sampler.{text}' for text in texts])


def sampler_of(*texts):
  return changed(*texts).sample.sampler.to_dict()


def test_a_solver_and_a_grid_bring_their_knobs():
  common = {'num_steps': 12, 'clip_x': True}
  assert sampler_of('name=dpmpp') == common | {'name': 'dpmpp', 'grid': 'paper'} | OF_DPMPP
  both = common | {'name': 'dpmpp', 'grid': 'edm'} | OF_DPMPP | OF_EDM
  assert sampler_of('name=dpmpp', 'grid=edm') == both == sampler_of('grid=edm', 'name=dpmpp')
  assert sampler_of('name=dpmpp', 'grid=edm', 'rho=5') == both | {'rho': 5.0}
  config_lib.check(changed('name=dpmpp', 'grid=edm'), OWNERS, 1)


def test_what_was_set_stays_with_its_part():
  assert sampler_of('v=0.5', 'grid=edm')['v'] == 0.5
  assert 'v' not in sampler_of('v=0.5', 'name=ddim')
  lambdas = sampler_of('grid=listed', 'lambdas=-7,0.5,9', 'num_steps=3')['lambdas']
  assert lambdas == (-7, 0.5, 9)


def test_the_same_name_and_other_fields_change_nothing_else():
  """Sets of samples that a run has already keep their folders."""
  assert sampler_of('name=ddpm', 'num_steps=12') == sampler_of()
  assert set(sampler_of('num_steps=5', 'v=0.2')) == set(sampler_of())


def test_a_knob_of_the_present_solver_that_the_config_does_not_name():
  assert sampler_of('quantile=0.995')['quantile'] == 0.995


@pytest.mark.parametrize(
  'texts, message',
  [
    (['eta=0.5'], 'sample.sampler.eta: the config has no such field'),
    (['name=ddim', 'v=0.5'], 'sample.sampler.v: the config has no such field'),
    (['name=ddim', 'eta=1.5'], r'sample.sampler.eta=1.5 must be in \[0, 1\]'),
    (
      ['name=euler'],
      "sample.sampler.name='euler' is none of ddpm, .*, ddim, heun, dpmpp",
    ),
    (['name=dpmpp', 'order=3'], 'sample.sampler.order=3 is none of 1, 2'),
    (['grid=cosine', 'num_steps=45', 'subset=stride'], 'sample.sampler.num_steps=45 .* try 44'),
  ],
)
def test_bad_input_is_one_line(texts, message):
  with pytest.raises(UserError, match=message) as error:
    config_lib.check(changed(*texts), OWNERS, 1)
  assert '\n' not in str(error.value)


def test_a_sweep_over_solvers_draws_from_one_model():
  config = load_config('digits')
  axes = grid.parse(['sample.sampler.name=ddpm,ddim,dpmpp', 'sample.sampler.num_steps=6,8'], config)
  [run] = grid.runs_of(config, axes)
  seen = [s.config.sample.sampler.to_dict() for s in run.samplings]
  assert [(s['name'], s['num_steps']) for s in seen] == [
    (name, n) for name in ('ddpm', 'ddim', 'dpmpp') for n in (6, 8)
  ]
  assert [('v' in s, 'eta' in s, 'order' in s) for s in seen[::2]] == [
    (True, False, False),
    (False, True, False),
    (False, False, True),
  ]


@pytest.mark.parametrize(
  'texts, calls',
  [([], 12), (['name=heun'], 23), (['name=dpmpp'], 12), (['name=dpmpp', 'singlestep=true'], 23)],
)
def test_the_plan_counts_every_call(texts, calls):
  config = changed(*texts)
  assert samplers.calls(config.sample.sampler) == calls
  assert [cost.image_calls(config, w) for w in (0.0, 1.0)] == [calls, 2 * calls]


@pytest.mark.slow
def test_generate_draws_with_it(call, tiny, tmp_path):
  train.train(tiny, tmp_path)
  for texts in ([], *(['name=' + name, 'grid=edm'] for name in ('ddim', 'heun', 'dpmpp'))):
    settings = [word for text in texts for word in ('--set', f'sample.sampler.{text}')]
    done = call(generate, '--workdir', tmp_path, *settings)
    assert done.returncode == 0, done.stderr
  sets = {}
  for path in tmp_path.glob('samples/*/w=1*/identity.json'):
    sampler = json.loads(path.read_text())['sample']['sampler']
    [*files] = sorted(path.parent.glob('*.npz'))
    sets[sampler['name']] = np.concatenate([np.load(file)['images'] for file in files])
  assert sorted(sets) == ['ddim', 'ddpm', 'dpmpp', 'heun']
  for name in ('ddim', 'heun', 'dpmpp'):
    assert not np.array_equal(sets[name], sets['ddpm'])
