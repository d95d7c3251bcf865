"""Every solver against exact oracles: closed-form maps, orders, and float64 twins on a mixture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import diffusion, guidance, samplers
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance import pairs, rules
from cfg_jax.equations.mixture import exact_eps as mixture_eps
from experiments import figure2_gaussians as mixture
from tests.equations.solver_twins import FORMS, Twin
from tests.equations.test_samplers import keys_of, sigmoid

W = np.float32([-1, 0, 0.1, 0.5, 1, 2, 4])
ODES = ('ddim', 'heun', '++1', '++2M', '++2S')


def draw(form, eps_fn, keys, shape, lam, clip_x=False):
  """Without guidance: x̃ of a form of `FORMS` along lam."""
  sampler, own = FORMS[form]

  def model(z, lam, memory):
    eps = eps_fn(z, lam)
    return Prediction(diffusion.predict_x(z, eps, lam), eps), memory

  @jax.jit
  def run(keys):
    settings = dict(sampler=sampler, clip_x=clip_x, **own)
    return samplers.sample_model(model, keys, shape, lam, **settings)

  return run(keys)


class TestGaussian:
  """x ~ N(m, s²): ε is linear in z, and the ODE's map and the SDE's moments are closed forms."""

  MEAN, STD = 0.3, 0.5

  def eps_fn(self, z, lam):
    alpha, sigma = (a[:, None] for a in diffusion.alpha_sigma(lam))
    return sigma * (z - alpha * self.MEAN) / ((alpha * self.STD) ** 2 + sigma**2)

  def exact(self, z, lam_1, lam_T):
    """x̃ at λ_T of the ODE's exact path from z at λ_1, float64."""

    def spread(lam):
      return np.sqrt(sigmoid(lam) * self.STD**2 + sigmoid(-lam))

    (a, _), (b, sigma) = (np.sqrt([sigmoid(lam), sigmoid(-lam)]) for lam in (lam_1, lam_T))
    z = b * self.MEAN + (z - a * self.MEAN) * spread(lam_T) / spread(lam_1)
    eps = sigma * (z - b * self.MEAN) / spread(lam_T) ** 2
    return (z - sigma * eps) / b

  def error(self, form, num_steps):
    with jax.enable_x64(True):
      keys = keys_of(np.arange(4))
      lam = samplers.lambda_grid(num_steps + 1, 'uniform', -8.0, 8.0)
      x = np.asarray(draw(form, self.eps_fn, keys, (3,), lam))
      z = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), (3,)))(keys)
      assert x.dtype == np.float64
    return np.max(np.abs(x - self.exact(np.asarray(z), -8.0, 8.0)))

  @pytest.mark.parametrize(
    'form, order, within',
    [
      ('ddim', 1, 0.05),
      ('++1', 1, 0.05),
      ('heun', 2, 0.1),
      ('++2M', 2, 0.1),
      ('++2S', 2, 0.1),
    ],
  )
  def test_order(self, form, order, within):
    errors = [self.error(form, num_steps) for num_steps in (160, 320)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=within), errors

  @pytest.mark.parametrize('form', FORMS)
  def test_order_of_the_variance(self, form, monkeypatch):
    """By impulse response: noise i is 1 for sample i and 0 for others, so that the squares of all
    samples add up to the variance. In 2S's SDE the two noises of a step must be one path's.
    """
    monkeypatch.setattr(jax.random, 'fold_in', lambda j, i: (j == i).astype(float))
    monkeypatch.setattr(jax.random, 'normal', lambda impulse, shape: jnp.full(shape, impulse))
    monkeypatch.setitem(FORMS, 'heun, churn', ('heun', {'s_churn': 10.0, 's_noise': 1.0}))
    variance = sigmoid(8) * self.STD**2 + sigmoid(-8)  # of z at λ = 8
    exact = sigmoid(8) * self.STD**4 / variance  # of x̃ there
    errors = []
    for num_steps in (80, 160):
      with jax.enable_x64(True):
        lam = samplers.lambda_grid(num_steps + 1, 'uniform', -12.0, 8.0)
        x = draw(form, self.eps_fn, jnp.arange(2 * len(lam) + 1), (1,), lam)
      responses = np.asarray(x[:-1] - x[-1])  # the last sample has no noise, only the mean
      errors.append(abs(np.sum(responses**2) / exact - 1))
    order = 2 if '2' in form or 'heun' in form else 1
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('num_steps', [2, 5])
def test_one_image_is_found_in_one_step(form, num_steps):
  """Data that is one point: x̃ is exact from the start, and stays, at whatever order."""
  if num_steps == 2 or form in ODES:
    point = np.float32([0.25, -0.5, 0.75])

    def eps_fn(z, lam):
      return diffusion.predict_eps(z, jnp.broadcast_to(point, z.shape), lam)

    lam = samplers.lambda_grid(num_steps, 'uniform', -6, 6)
    x = draw(form, eps_fn, keys_of(np.arange(8)), (3,), lam)
    np.testing.assert_allclose(x, np.tile(point, (8, 1)), atol=1e-5)


@pytest.mark.parametrize('form', ODES)
def test_state_after_a_step_is_exact_for_one_image(form):
  """The next z of an ODE's step is α' x + σ' ε of the same x and ε."""
  point, seen = 0.25, []

  def eps_fn(z, lam):
    jax.debug.callback(lambda *z_lam: seen.append(z_lam), z, lam, ordered=True)
    return diffusion.predict_eps(z, jnp.full_like(z, point), lam)

  draw(form, eps_fn, keys_of(np.arange(8)), (3,), samplers.lambda_grid(4, 'uniform', -4, 4))
  jax.effects_barrier()
  first, lam_1 = seen[0]
  eps = diffusion.predict_eps(first, jnp.full_like(first, point), lam_1)
  for z, lam in seen:
    np.testing.assert_allclose(z, diffusion.diffuse(jnp.full_like(z, point), eps, lam), atol=2e-6)


@functools.partial(jax.jit, static_argnames=('form', 'clip_x', 'quantile'))
def guided(keys, c, w, lam, form, clip_x=False, quantile=0.0, changes=None):
  sampler, own = FORMS[form]
  means = np.array(mixture.MEANS, jnp.result_type(float))  # JAX keeps an array's first type
  eps_fn = functools.partial(mixture_eps, means=means, std=mixture.STD)
  model = guidance.guide(pairs.null(eps_fn, Cond(c, c < 3)), rules.classifier_free, w=w)

  def of_kinds(z, lam, memory):
    prediction, memory = model(z, lam, memory)
    return prediction._replace(kind=lam > changes), memory

  return samplers.sample_model(
    of_kinds if changes is not None else model,
    keys,
    (2,),
    lam,
    sampler=sampler,
    clip_x=clip_x,
    quantile=quantile,
    **own,
  )


def noises(keys, n):
  normal = jax.vmap(
    jax.vmap(lambda k, i: jax.random.normal(jax.random.fold_in(k, i), (2,)), (0, None)), (None, 0)
  )
  return np.float64(jax.jit(normal)(keys, jnp.arange(n)))


class TestMixture:
  """Three 2-D Gaussians, guided with exact ε(z, λ, c) and ε(z, λ)."""

  N = 210

  def compare(self, form, lam, clip_x=False, clip=lambda x: x, bits=64, atol=1e-7, **settings):
    """w = −1, 0, …, 4 side by side in one batch, one for each sample."""
    with jax.enable_x64(bits == 64):
      keys, c, w = (
        keys_of(np.arange(self.N)),
        np.arange(self.N) % 3,
        np.float64(np.repeat(W, self.N // 7)),
      )
      lam = jnp.asarray(np.float64(lam), float)
      noise, changes = noises(keys, 2 * len(lam)), settings.get('changes')
      expected = Twin(c, w, np.float64(lam), noise, clip, changes).run(form)
      x = np.asarray(guided(keys, c, w, lam, form, clip_x, **settings))
    np.testing.assert_allclose(x, expected, rtol=0, atol=atol)
    return x

  @pytest.mark.parametrize('form', FORMS)
  def test_equals_its_paper_on_the_same_noise(self, form):
    self.compare(form, samplers.lambda_grid(32, 'paper'))
    self.compare(form, samplers.lambda_grid(8, 'edm'), True, lambda x: np.clip(x, -1, 1))

  @pytest.mark.parametrize('form', FORMS)
  def test_float32_suffices(self, form):
    """Off by what remains of x̃ at λ = −20, where rounding weighs 22 026 times, guided by w = 4."""
    for grid, num_steps, atol in (('paper', 64, 5e-4), ('cosine', 64, 5e-4), ('edm', 64, 5e-5)):
      lam = samplers.lambda_grid(num_steps, grid)
      self.compare(form, lam, True, lambda x: np.clip(x, -1, 1), 32, atol)

  @pytest.mark.parametrize('form', FORMS)
  def test_predictions_of_two_kinds_are_not_combined(self, form):
    lam = samplers.lambda_grid(10, 'edm')
    with_kinds, without = (self.compare(form, lam, changes=at) for at in (0.5, 100.0))
    looks = FORMS[form][0] == 'heun' or form.startswith('++2M')
    assert np.array_equal(with_kinds, without) != looks

  @pytest.mark.parametrize('form', ['ddim', '++2M'])
  def test_dynamic_threshold(self, form):
    def clip(x):
      s = np.maximum(np.quantile(np.abs(x), 0.75, axis=1), 1)[:, None]
      return np.clip(x, -s, s) / s

    x = self.compare(form, samplers.lambda_grid(8, 'edm'), True, clip, quantile=0.75)
    assert np.max(np.abs(x)) == 1


class TestIdentities:
  """Two solvers that are one, on the same noise, in float32."""

  def pair_of(self, one, other, lam, atol, clip_x=True):
    n = 210
    keys, c, w = keys_of(np.arange(n)), np.arange(n) % 3, np.resize(np.float32([0, 1, 4]), n)
    a, b = (np.asarray(guided(keys, c, w, lam, form, clip_x)) for form in (one, other))
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)

  @pytest.mark.parametrize('schedule', ['linear', 'cosine'])
  @pytest.mark.parametrize(
    'num_steps, subset',
    [(250, 'fractional'), (25, 'stride'), (10, 'uniform'), (10, 'quadratic'), (27, 'fractional')],
  )
  def test_ddim_of_eta_1_is_ddpm_of_v_0(self, monkeypatch, schedule, num_steps, subset):
    monkeypatch.setitem(FORMS, 'η=1', ('ddim', {'eta': 1.0}))
    lam = samplers.lambda_grid(num_steps, schedule, subset=subset)
    self.pair_of('η=1', 'ddpm v=0', lam, 1e-5, clip_x=schedule == 'cosine' and num_steps == 25)

  @pytest.mark.parametrize('grid', ['paper', 'edm', 'linear', 'cosine', 'uniform'])
  def test_dpmpp_of_order_1_is_ddim(self, grid):
    lam = samplers.lambda_grid(16, grid)
    self.pair_of('++1', 'ddim', lam, 1e-5)
    self.pair_of('++1 SDE', 'ddpm v=0', lam, 1e-5)

  def test_2m_is_ddim_where_the_last_step_was_long(self):
    """r → ∞: the first step takes λ from −20 to 0."""
    lam = samplers.lambda_grid(4, 'listed', lambdas=(-20.0, 0.0, 1e-4, 2e-4))
    self.pair_of('++2M', 'ddim', lam[:3], 1e-5)

  def test_a_step_of_over_twice_the_last_is_of_order_1(self):
    lam = samplers.lambda_grid(4, 'listed', lambdas=(-4.0, -3.0, -0.9, 3.5))
    self.pair_of('++2M', 'ddim', lam, 1e-6)


@pytest.mark.parametrize('form', FORMS)
def test_calls_are_counted(form):
  """As many as `calls` says, the last one at λ_T."""
  sampler, own = FORMS[form]
  seen = []

  def eps_fn(z, lam):
    jax.debug.callback(lambda lam: seen.append(float(lam[0])), lam, ordered=True)
    return jnp.zeros_like(z)

  section = {'name': sampler, 'grid': 'edm', 'num_steps': 6, 'clip_x': True, **own}
  lam = samplers.grid_of(section, -20.0, 20.0)
  draw(form, eps_fn, keys_of(np.arange(2)), (2,), lam)
  jax.effects_barrier()
  assert len(seen) == samplers.calls(section)
  assert seen[0] <= lam[0] and seen[-1] == lam[-1]


@pytest.mark.parametrize('form', FORMS)
def test_finite_and_clipped_over_all_of_lambda(form):
  """λ ∈ [−20, 20] in three steps, with a model that is wrong everywhere."""

  def eps_fn(z, lam):
    return jnp.sin(3 * z) + 0.5

  lam = samplers.lambda_grid(4)
  x = np.asarray(draw(form, eps_fn, keys_of(np.arange(8)), (4,), lam, clip_x=True))
  assert np.all(np.abs(x) <= 1)
