"""Grids of λ: DDPM's schedules and subsets as published, EDM's levels, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import samplers, schedules
from cfg_jax.equations.schedules import ddpm_lambdas
from cfg_jax.nets import embed

# guided-diffusion's "250": 999/249 apart from 0 to 999.
DDPM_250 = [round(i * 999 / 249) for i in range(250)]
DDIM_25 = list(range(0, 961, 40))


class TestSchedules:
  @pytest.mark.parametrize(
    'schedule, ends', [('linear', (9.2102, -10.1177)), ('cosine', (10.0950, -19.8359))]
  )
  def test_ends(self, schedule, ends):
    lam = ddpm_lambdas(schedule)
    np.testing.assert_allclose((lam[0], lam[-1]), ends, atol=5e-5)
    grid = np.asarray(samplers.lambda_grid(1000, schedule))
    np.testing.assert_array_equal(grid, np.float32(lam[::-1]))

  def test_last_alpha_of_linear(self):
    np.testing.assert_allclose(1 / (1 + np.exp(-ddpm_lambdas('linear')[-1])), 4.0358e-5, rtol=1e-4)

  @pytest.mark.parametrize('schedule', ['linear', 'cosine'])
  @pytest.mark.parametrize(
    'num_steps, subset', [(250, 'fractional'), (25, 'stride'), (10, 'uniform'), (10, 'quadratic')]
  )
  def test_betas_of_a_subset_reproduce_its_alphas(self, schedule, num_steps, subset):
    """β of a step, 1 − ᾱ_t/ᾱ_s, in the reverse transition's terms: (1 − e^{λ_t − λ_s}) σ_t²."""
    lam = np.float64(samplers.lambda_grid(num_steps, schedule, subset=subset))[::-1]
    kept = schedules.times(num_steps, subset)
    betas = -np.expm1(lam[1:] - lam[:-1]) / (1 + np.exp(lam[1:]))
    first = 1 / (1 + np.exp(lam[0]))  # from ᾱ = 1
    alpha_bar = np.cumprod(1 - np.concatenate([[first], betas]))
    exact = 1 / (1 + np.exp(-ddpm_lambdas(schedule)))  # ᾱ of all the times
    np.testing.assert_allclose(alpha_bar, exact[kept], rtol=1e-4)


class TestSubsets:
  def test_ddpm_250_of_guided_diffusion(self):
    kept = schedules.times(250, 'fractional')
    assert kept[:6] == [0, 4, 8, 12, 16, 20] and kept[-2:] == [995, 999]
    assert kept == DDPM_250

  def test_ddim_25_of_guided_diffusion(self):
    assert schedules.times(25, 'stride') == DDIM_25

  def test_ddim_uniform_ends_early(self):
    assert schedules.times(10, 'uniform') == list(range(0, 1000, 100))

  def test_ddim_quadratic(self):
    expected = [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]
    assert schedules.times(10, 'quadratic') == expected

  def test_sections(self):
    """guided-diffusion's "10,10,15,20,20", and GLIDE's fast27."""
    kept = schedules.times(75, 'fractional', (10, 10, 15, 20, 20))
    assert len(kept) == 75 and kept[:2] == [0, 22] and kept[9:11] == [199, 200] and kept[-1] == 999
    kept = schedules.times(27, 'fractional', (10, 10, 3, 2, 2))
    assert kept[-7:] == [400, 500, 599, 600, 799, 800, 999]

  @pytest.mark.parametrize('schedule', ['linear', 'cosine'])
  @pytest.mark.parametrize(
    'num_steps, subset, expected', [(250, 'fractional', DDPM_250), (25, 'stride', DDIM_25)]
  )
  def test_a_network_of_discrete_times_is_told_these(self, schedule, num_steps, subset, expected):
    """The λ's embedding is, to the last bit, that of the time: t comes out whole."""
    lam = samplers.lambda_grid(num_steps, schedule, subset=subset)
    got = jnp.interp(-lam, -embed.adm_lambdas(f'adm_{schedule}'), np.arange(1000.0))
    np.testing.assert_array_equal(got[::-1], expected)


class TestOtherGrids:
  def test_edm_has_the_published_levels(self):
    """Karras et al. 2022, equation 5, at N = 18."""
    lam = samplers.lambda_grid(18, 'edm', sigma_min=0.002, sigma_max=80.0)
    i = np.arange(18)
    sigmas = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(np.exp(-np.float64(lam) / 2), sigmas, rtol=1e-5)
    np.testing.assert_allclose(sigmas[:2], [80, 57.586], rtol=1e-4)  # as EDM prints them

  def test_uniform_and_listed(self):
    np.testing.assert_array_equal(samplers.lambda_grid(5, 'uniform', -4, 4), [-4, -2, 0, 2, 4])
    listed = samplers.lambda_grid(3, 'listed', lambdas=(-7, 0.5, 9))
    np.testing.assert_array_equal(listed, [-7, 0.5, 9])

  @pytest.mark.parametrize('grid', schedules.GRIDS)
  def test_from_noise_to_data(self, grid):
    knobs = {'lambdas': (-3.0, -1.0, 0.0, 0.1, 5.0)} if grid == 'listed' else {}
    lam = np.asarray(samplers.lambda_grid(5, grid, **knobs))
    assert lam.shape == (5,) and lam.dtype == np.float32
    assert np.all(np.diff(lam) > 0)


@pytest.mark.parametrize(
  'num_steps, grid, knobs, message',
  [
    (1, 'paper', {}, 'num_steps=1 must be at least 2'),
    (8, 'karras', {}, "grid='karras' is none of paper, linear"),
    (45, 'cosine', {'subset': 'stride'}, 'num_steps=45 is not what subset=stride .* try 44'),
    (30, 'cosine', {'subset': 'uniform'}, 'num_steps=30 is not what subset=uniform .* try 2'),
    (900, 'linear', {'subset': 'quadratic'}, 'num_steps=900 is not what subset=quadratic can'),
    (1001, 'linear', {}, 'num_steps=1001 is not .* of 1000 times; try 1000'),
    (8, 'linear', {'subset': 'ddim'}, "subset='ddim' is none of fractional, stride"),
    (8, 'linear', {'sections': (4, 5)}, 'sections=.4, 5. must be counts that add up to num_steps'),
    (8, 'linear', {'sections': (4, 4), 'subset': 'stride'}, 'sections=.* of subset=fractional'),
    (602, 'linear', {'sections': (600, 2)}, 'sections=.* asks more of a section than its 500'),
    (8, 'edm', {'sigma_min': 60.0}, 'sigma_min=60.0 must be above 0 and below sigma_max=50'),
    (8, 'edm', {'rho': 0.0}, 'rho=0.0 must be 1 to 100; EDM has 7'),
    (8, 'edm', {'sigma_min': 1e-6}, "grid='edm' goes from λ = -7.8.* to 27.63.* not trained"),
    (2, 'listed', {'lambdas': (0.0,)}, 'lambdas=.* has 1 values, and num_steps=2'),
    (2, 'listed', {'lambdas': (1.0, 0.0)}, 'lambdas=.* must increase, from noise to data'),
  ],
)
def test_what_is_no_grid_is_one_line(num_steps, grid, knobs, message):
  with pytest.raises(ValueError, match=message) as error:
    samplers.lambda_grid(num_steps, grid, **knobs)
  assert '\n' not in str(error.value)
