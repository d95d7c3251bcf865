"""Particles by name: on the command, on disk, in the plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core.errors import UserError
from cfg_jax.equations import conditioning, samplers
from cfg_jax.generate import __main__ as generate
from cfg_jax.generate.store import sample_sets
from cfg_jax.methods import sampling
from cfg_jax.methods.method import Request
from cfg_jax.methods.owners import OWNERS
from cfg_jax.plan import cost
from cfg_jax.report import cost as report_cost
from experiments import figure2_gaussians as figure2
from tests.equations.test_samplers import keys_of
from tests.experiments.test_figure2 import exact_radial
from tests.generate.test_guide import images_of, random_run

SMC = ['sample.sampler.name=smc', 'sample.sampler.particles=4', 'sample.sampler.grid=edm']
SMC += ['sample.sampler.num_steps=6', 'sample.guidance.w=0,2', 'sample.num_samples=6']


@pytest.fixture
def drawn(tiny, tmp_path, call):
  """(Printed, config) of samples of a random network, by some settings."""
  random_run(tiny, tmp_path, 0)

  def draw(*texts):
    texts = [*SMC, *texts]
    done = call(generate, '--workdir', tmp_path, *(x for s in texts for x in ('--set', s)))
    assert done.returncode == 0, done.stderr
    return done.stdout, config_lib.change(config_lib.of_run(tmp_path), texts)

  return draw


def test_a_network_draws_with_it(drawn, tmp_path):
  """And what is told of the images is beside them, on disk."""
  told, config = drawn('sample.batch_size=8')  # two images at once
  both = images_of(tmp_path, config)
  assert both[0].shape == (6, 8, 8, 1) and (both[0] != both[1]).mean() > 0.05
  zero, two = sample_sets(config.sample, 3)
  of_zero, of_two = (s.beside(tmp_path, 'effective', 6) for s in (zero, two))
  assert of_two.shape == (6, 5)
  np.testing.assert_array_equal(of_zero, 4)  # nothing is weighted
  assert 1 <= of_two.min() < 3 and of_two.max() <= 4 + 1e-4
  line = f'effective after a step: least {of_two.min():.2f}, mean {of_two.mean():.2f}; of 6 images.'
  assert f'w=2: of 4 particles, {line}' in told.splitlines()
  assert np.all(np.isfinite(two.beside(tmp_path, 'log_ratio', 6)))


@pytest.mark.slow
def test_whatever_is_drawn_at_once(drawn, tmp_path):
  _, config = drawn('sample.batch_size=8')
  before = images_of(tmp_path, config)
  _, two = sample_sets(config.sample, 3)
  effective = two.beside(tmp_path, 'effective', 6)
  for file in tmp_path.glob('samples/*/*/*.npz'):
    file.unlink()
  _, config = drawn('sample.batch_size=24')
  for a, b in zip(before, images_of(tmp_path, config)):
    assert (a != b).mean() < 0.02  # but for rounding
  np.testing.assert_allclose(two.beside(tmp_path, 'effective', 6), effective, rtol=1e-2)


def test_samples_are_of_the_tilt(tiny):
  """Figure 2's Gaussians in place of a network, as its config asks: not where guidance ends."""
  config = changed(tiny, 'sampler.particles=64', 'batch_size=64', 'sampler.clip_x=false')
  n, w = 600, 1.0
  c, lam = np.arange(n) % 3, samplers.lambda_grid(64, 'uniform', -10.0, 10.0)
  request = Request(keys_of(np.arange(n)), conditioning.given(c), {'w': jnp.full(n, w)})
  drawn = jax.jit(lambda request: sampling.draw(config, figure2.exact_eps, {}, request, (2,), lam))(
    request
  )
  mean, std = figure2.radial(np.asarray(drawn.x), c, np.ones(n))
  exact_mean, exact_std = exact_radial(w)
  assert mean == pytest.approx(exact_mean, abs=4 * exact_std / np.sqrt(n))
  assert std == pytest.approx(exact_std, rel=4 / np.sqrt(2 * n))
  log_p = -np.sum((drawn.x - figure2.MEANS[:, None]) ** 2, axis=-1) / 2
  exact = (log_p - np.logaddexp.reduce(log_p, axis=0))[c, np.arange(n)] + np.log(3)
  assert np.sqrt(np.mean((drawn.beside['log_ratio'][:, -1] - exact) ** 2)) < 0.6 * np.std(exact)


def changed(tiny, *texts):
  return config_lib.change(tiny, [*SMC, *(f'sample.{text}' for text in texts)])


def test_the_plan_and_the_page_count_every_call(tiny):
  """Both predictions of each particle at every step, at w = 0 too."""
  config = changed(tiny)
  assert [cost.image_calls(config, w) for w in (0.0, 2.0)] == [2 * 4 * 6, 2 * 4 * 6]
  settings = {f'sample.sampler.{k}': v for k, v in config.sample.sampler.items()}
  settings |= {f'sample.guidance.{k}': v for k, v in config.sample.guidance.items() if k != 'w'}
  assert report_cost._calls(settings | {'sample.guidance.w': 2.0}) == 2 * 4 * 6


@pytest.mark.parametrize(
  'texts, said',
  [
    (['sampler.particles=0'], 'sampler.particles=0 must be 1 or more'),
    (['sampler.particles=2.5'], 'sampler.particles'),
    (['batch_size=3'], 'sampler.particles=4 must be at most sample.batch_size=3'),
    (['sampler.resample_below=1.5'], 'sampler.resample_below=1.5 is a share'),
    (['sampler.v=2'], r'sampler.v=2.0 must be in \[0, 1\]'),
    (['guidance.rule=interval'], "guidance.rule='interval' is weighted by no particles"),
    (['sampler.eta=1'], 'sampler.eta: the config has no such field'),
  ],
)
def test_bad_input_is_one_line(tiny, texts, said):
  with pytest.raises(UserError, match=said) as error:
    config_lib.check(changed(tiny, *texts), OWNERS, 1)
  assert '\n' not in str(error.value)
