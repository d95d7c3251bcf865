"""Guidance rules against their laws: Gaussian classes of unequal variance, float64 by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import conditioning, diffusion, guidance, samplers
from cfg_jax.equations.guidance import characteristic, pairs, rules
from tests.equations.test_samplers import sigmoid

CLASS, WHOLE, WEAK = (0.7, 0.5), (-0.2, 1.3), (0.7, 0.9)  # means and variances
C = conditioning.given(jnp.zeros(1, int))


def gaussian(z, lam, mean, variance):
  """ε of x ~ N(mean, variance)."""
  alpha, sigma = diffusion.alpha_sigma(diffusion.over_batch(lam, z))
  return sigma * (z - alpha * mean) / (alpha**2 * variance + sigma**2)


def eps_fn(z, lam, cond):
  """Of class 0, of class 1, WEAK's, and of ∅."""
  given = diffusion.over_batch(cond.given, z)
  own = jnp.where(
    diffusion.over_batch(cond.value == 0, z),
    gaussian(z, lam, *CLASS),
    gaussian(z, lam, *WEAK),
  )
  return jnp.where(given, own, gaussian(z, lam, *WHOLE))


def weak_fn(z, lam, cond):
  del cond
  return gaussian(z, lam, *WEAK)


def cond(n):
  return conditioning.given(jnp.zeros(n, int))


def moments(make_pair, rule, lam, sampler, knobs, own):
  """Mean and variance of x̃, by impulse response: noise i is 1 for sample i, and 0 for others."""

  @jax.jit
  def run(impulses):
    n = len(impulses)
    model = guidance.guide(make_pair(n), rule, **knobs)
    return samplers.sample_model(model, impulses, (1,), lam, sampler=sampler, clip_x=False, **own)

  x = np.asarray(run(jnp.arange(len(lam) + 1)))[:, 0]
  return x[-1], np.sum((x[:-1] - x[-1]) ** 2)


def recursion(lam, w_of, away, sampler, v=0.0):
  """The same, of z' = a z + b + noise: float64, written from the paper's Section 2."""
  lam, (m, s), (m2, s2) = np.float64(lam), CLASS, away
  mean, variance = 0.0, 1.0
  for t, l in enumerate(lam):
    alpha, sigma, w = np.sqrt(sigmoid(l)), np.sqrt(sigmoid(-l)), w_of(l)
    own, other = (sigma / (alpha**2 * x + sigma**2) for x in (s, s2))
    of_z = (1 + w) * own - w * other  # ε̃ = of_z z − shift
    shift = alpha * ((1 + w) * own * m - w * other * m2)
    x_z, x_1 = (1 - sigma * of_z) / alpha, sigma * shift / alpha
    if t == len(lam) - 1:
      return x_z * mean + x_1, x_z**2 * variance
    l2 = lam[t + 1]
    a2, sg2 = np.sqrt(sigmoid(l2)), np.sqrt(sigmoid(-l2))
    if sampler == 'ddim':
      of, one, noise = a2 * x_z + sg2 * of_z, a2 * x_1 - sg2 * shift, 0.0
    else:
      e = np.exp(l - l2)
      of, one = e * a2 / alpha + (1 - e) * a2 * x_z, (1 - e) * a2 * x_1
      noise = (1 - e) * sg2 ** (2 * (1 - v)) * sigma ** (2 * v)
    mean, variance = of * mean + one, of**2 * variance + noise


def p_of(lam):
  return 1 - 2 / np.pi * np.arctan(np.exp(-lam / 2))


def in_interval(lam):
  return 1.5 * (-2 <= lam < 1.5)


LAWS = {
  'classifier_free': ({'w': 1.5}, lambda lam: 1.5),
  'interval': ({'w': 1.5, 'lo': -2.0, 'hi': 1.5}, in_interval),
  'linear': ({'w': 1.5}, lambda lam: 3 * p_of(lam)),
  'cosine': ({'w': 1.5}, lambda lam: 1.5 * (1 - np.cos(np.pi * p_of(lam)))),
  'beta': ({'w': 1.5}, lambda lam: 1.5 * 6 * p_of(lam) * (1 - p_of(lam))),
}
PAIRS = {
  'null': (lambda n: pairs.null(eps_fn, cond(n)), WHOLE),
  'autoguidance': (lambda n: pairs.autoguidance(eps_fn, cond(n), weak_fn), WEAK),
  'contrast': (
    lambda n: pairs.contrast(eps_fn, cond(n), conditioning.given(jnp.ones(n, int))),
    WEAK,
  ),
}


@pytest.fixture
def impulses(monkeypatch):
  monkeypatch.setattr(jax.random, 'fold_in', lambda j, i: (j == i).astype(float))
  monkeypatch.setattr(jax.random, 'normal', lambda impulse, shape: jnp.full(shape, impulse))
  with jax.enable_x64(True):
    yield


class TestGaussianLaw:
  """A rule that is linear in z makes one Gaussian of another, at any number of steps."""

  @pytest.mark.parametrize(
    'pair, rule',
    [*(('null', r) for r in LAWS), ('autoguidance', 'classifier_free'), ('contrast', 'interval')],
  )
  @pytest.mark.parametrize(
    'sampler, own', [('ddim', {}), ('ddpm', {'v': 0.3}), ('ddpm', {'v': 0.0})]
  )
  def test_mean_and_variance_at_finite_steps(self, impulses, pair, rule, sampler, own):
    (make, away), (knobs, w_of) = PAIRS[pair], LAWS[rule]
    lam = samplers.lambda_grid(24, 'uniform', -15.0, 12.0)
    found = moments(make, rules.RULES[rule], lam, sampler, knobs, own)
    np.testing.assert_allclose(found, recursion(lam, w_of, away, sampler, **own), rtol=1e-8)

  @pytest.mark.parametrize('w', [0.5, 2.0])
  def test_laws_of_many_steps(self, impulses, w):
    """S_c R^{−w} by the ODE, S_c R^{−2w} (R^{2w+1} − 1)/((2w + 1)(R − 1)) by ancestral sampling;
    p̃'s own variance, S_c/(1 + w − w/R), is neither.
    """
    s, ratio = CLASS[1], WHOLE[1] / CLASS[1]
    lam = samplers.lambda_grid(1200, 'uniform', -20.0, 15.0)
    ode = s * ratio**-w
    ancestral = s * ratio ** (-2 * w) * (ratio ** (2 * w + 1) - 1) / ((2 * w + 1) * (ratio - 1))
    run = functools.partial(moments, PAIRS['null'][0], rules.classifier_free, lam)
    assert run('ddim', {'w': w}, {})[1] == pytest.approx(ode, rel=0.02)
    assert run('ddpm', {'w': w}, {'v': 0.0})[1] == pytest.approx(ancestral, rel=0.02)
    tilt = s / (1 + w - w / ratio)
    assert min(abs(tilt - ode), abs(tilt - ancestral)) > 0.05 * tilt

  @pytest.mark.parametrize('rule', ['classifier_free', 'interval', 'cosine'])
  def test_deviation_of_any_w_of_lambda(self, impulses, rule):
    """exp{½ ∫ d ln(S_c + τ²) + ½ ∫ w d ln((S_c + τ²)/(S_u + τ²))} with τ² = e^{−λ}, by the ODE."""
    knobs, w_of = LAWS[rule]
    lam = samplers.lambda_grid(1500, 'uniform', -18.0, 12.0)
    _, variance = moments(PAIRS['null'][0], rules.RULES[rule], lam, 'ddim', knobs, {})
    fine = np.linspace(-18, 12, 200_001)
    own, other = (np.log(v + np.exp(-fine)) for v in (CLASS[1], WHOLE[1]))
    middle = 0.5 * (fine[1:] + fine[:-1])
    w = np.array([w_of(x) for x in middle])
    log = np.sum(np.diff(own) + w * np.diff(own - other))
    start = (np.exp(18) + 1) / np.exp(0)  # variance of z/α = that of N(0, 1) over α²
    shrink = (1 / (1 + np.exp(-12) / CLASS[1])) ** 2  # from z to x̃ at λ = 12
    assert variance == pytest.approx(start * np.exp(log) * shrink, rel=0.03)


def test_cfg_pp_is_ddim_of_another_w_at_each_step(impulses):
  """1 + w = γ/(1 − e^{−δ/2}), but for the last call, which has no step: mean and variance."""
  gamma, lam = 0.6, samplers.lambda_grid(24, 'uniform', -15.0, 12.0)
  delta = np.append(np.diff(lam), np.inf)
  of = {float(l): gamma / (1 - np.exp(-d / 2)) - 1 for l, d in zip(lam, delta)}
  found = moments(PAIRS['null'][0], rules.cfg_pp, lam, 'ddim', {'w': gamma}, {})
  exact = recursion(lam, lambda l: of[float(l)], WHOLE, 'ddim')
  np.testing.assert_allclose(found, exact, rtol=1e-9)
  unconditional = moments(PAIRS['null'][0], rules.cfg_pp, lam, 'ddim', {'w': 0.0}, {})
  np.testing.assert_allclose(unconditional, recursion(lam, lambda l: -1.0, WHOLE, 'ddim'))


@pytest.mark.parametrize(
  's, s_u, w', [(0.5, 1.3, 1.0), (0.2, 1.0, 4.0), (0.9, 0.7, 0.5), (1.5, 1.2, 2)]
)
def test_characteristic_guidance_is_the_noised_tilts_score(s, s_u, w):
  """On centred Gaussians: ε̃ = σ z/(α² S + σ²), where 1/S = (1 + w)/S_c − w/S_u."""
  with jax.enable_x64(True):
    lam = jnp.linspace(-12, 12, 25)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(25, 3)))

    def centred(z, lam, c):
      given = diffusion.over_batch(c.given, z)
      return jnp.where(given, gaussian(z, lam, 0, s), gaussian(z, lam, 0, s_u))

    pair = characteristic.characteristic(centred, cond(25), w)
    eps = guidance.guide(pair, rules.classifier_free, w=w)(z, lam, samplers.loop.Memory(z, z))[
      0
    ].eps
    exact = gaussian(z, lam, 0, 1 / ((1 + w) / s - w / s_u))
  np.testing.assert_allclose(eps, exact, rtol=1e-7)


def test_information_is_the_divergence():
  """½ E ∫ ‖ε(z, c) − ε(z)‖² dλ over z of class c is KL(p(x|c)‖p(x)): what guidance can use."""
  (m, s), (m2, s2) = CLASS, WHOLE
  nodes, weights = np.polynomial.hermite_e.hermegauss(4)  # exact for squares
  lam = np.linspace(-25, 25, 4001)
  with jax.enable_x64(True):
    alpha, sigma = np.sqrt(sigmoid(lam)), np.sqrt(sigmoid(-lam))
    z = alpha * m + np.sqrt(alpha**2 * s + sigma**2) * nodes[:, None]
    z, lams = z.reshape(-1, 1), jnp.asarray(np.tile(lam, 4))
    both = pairs.null(eps_fn, cond(len(z)))(jnp.asarray(z), lams)
  gap = np.asarray(both[0].eps - both[1].eps).reshape(4, -1) ** 2
  information = 0.5 * np.trapezoid(weights @ gap / weights.sum(), lam)
  kl = 0.5 * (s / s2 + (m - m2) ** 2 / s2 - 1 + np.log(s2 / s))
  assert information == pytest.approx(kl, rel=1e-5)
