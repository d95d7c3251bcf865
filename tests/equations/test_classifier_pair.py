"""Classifier guidance against exact mixtures, whose ε and p(c|z) are known: SYSTEMS' oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import conditioning, diffusion, guidance, mixture
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.guidance import pairs, rules
from cfg_jax.equations.samplers.ddpm import ddpm
from cfg_jax.equations.samplers.ddpm_shifted import ddpm_shifted
from cfg_jax.equations.samplers.loop import Memory, Step

MEANS = np.array([[0.0, 1.2], [1.0, -0.6], [-1.0, -0.6]], np.float32)
STD = 0.5
LAM = np.linspace(-20, 20, 81, dtype=np.float32)  # one for each sample
CLASSES = jnp.arange(len(LAM)) % 3


def eps_fn(z, lam, cond):
  return mixture.exact_eps(z, lam, cond, means=jnp.asarray(MEANS), std=STD)


def logits(z, lam):
  """log q(z_λ|c) up to a constant, of equally likely classes: (B, 3)."""
  alpha, sigma = (a[:, None] for a in diffusion.alpha_sigma(lam))
  delta = z[:, None] - alpha[..., None] * MEANS
  return -jnp.sum(delta**2, axis=-1) / (2 * ((alpha * STD) ** 2 + sigma**2))


def log_prob(z, lam, c):
  return jnp.take_along_axis(jax.nn.log_softmax(logits(z, lam)), c[:, None], axis=1)[:, 0]


@pytest.fixture
def z():
  """Samples of q(z_λ), one for each λ."""
  x = MEANS[CLASSES[::-1]] + STD * np.random.default_rng(0).normal(size=(len(LAM), 2))
  eps = np.random.default_rng(1).normal(size=x.shape)
  return diffusion.diffuse(*(jnp.asarray(a, jnp.float32) for a in (x, eps)), LAM)


def guided(pair, z, w):
  """ε̃ by the paper's rule."""
  return guidance.guide(pair, rules.classifier_free, w=w)(z, LAM, Memory(z, z))[0].eps


def pairs_of(log_prob=log_prob, cond=None):
  cond = conditioning.given(CLASSES) if cond is None else cond
  of_classifier = pairs.classifier, pairs.classifier_unconditional
  return [pairs.null(eps_fn, cond), *(make(eps_fn, cond, log_prob) for make in of_classifier)]


@pytest.mark.parametrize('w', [-1.0, 0.0, 0.5, 4.0])
def test_the_exact_classifier_guides_as_classifier_free_does(z, w):
  """Both of the paper's identities: w on p(x|c), and w + 1 on p(x), are one field."""
  free, conditional, unconditional = (guided(pair, z, w) for pair in pairs_of())
  scale = 1 + np.abs(free).max(axis=1, keepdims=True)
  np.testing.assert_allclose((unconditional - free) / scale, 0, atol=1e-5)
  np.testing.assert_allclose((conditional - free) / scale, 0, atol=1e-5)


def test_the_field_against_float64(z):
  """ε(z, c) − w σ ∇ log p(c|z), the gradient written out by hand."""
  w, z64, lam = 2.0, np.asarray(z, np.float64), LAM.astype(np.float64)[:, None]
  alpha, sigma = np.sqrt(1 / (1 + np.exp(-lam))), np.sqrt(1 / (1 + np.exp(lam)))
  variance = (alpha * STD) ** 2 + sigma**2
  delta = z64[:, None] - alpha[..., None] * MEANS
  exponent = -(delta**2).sum(-1) / (2 * variance)
  p = np.exp(exponent - exponent.max(1, keepdims=True))
  p /= p.sum(1, keepdims=True)
  own = np.take_along_axis(delta, np.asarray(CLASSES)[:, None, None], axis=1)[:, 0]
  gradient = ((p[..., None] * delta).sum(1) - own) / variance
  exact = sigma / variance * own - w * sigma * gradient
  found = guided(pairs_of()[1], z, w)
  np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())


def test_without_guidance_no_classifier_is_asked(z):
  """w = 0 is the conditional model, to the bit, also where w is traced."""

  def broken(z, lam, c):
    raise AssertionError('the classifier was called')

  plain = eps_fn(z, LAM, conditioning.given(CLASSES))
  np.testing.assert_array_equal(guided(pairs_of(broken)[1], z, 0.0), plain)
  np.testing.assert_array_equal(guided(pairs_of(broken)[1], z, np.zeros(len(LAM))), plain)
  nan = pairs_of(lambda z, lam, c: jnp.nan * z.sum(1))[1]
  traced = jax.jit(lambda w: guided(nan, z, w))
  np.testing.assert_allclose(traced(0.0), plain, rtol=1e-6)
  assert np.isnan(traced(1.0)).all()


def test_a_sample_has_its_own_gradient_alone(z):
  cond = conditioning.given(CLASSES)
  before = pairs.class_gradient(log_prob, z, LAM, cond)
  after = pairs.class_gradient(log_prob, z.at[40].add(1.0), LAM, cond)
  changed = np.any(np.asarray(before) != after, axis=1)
  assert changed[40] and changed.sum() == 1


def test_towards_no_class_there_is_no_gradient(z):
  cond = Cond(CLASSES, jnp.arange(len(LAM)) % 2 == 0)
  gradient = np.asarray(pairs.class_gradient(log_prob, z, LAM, cond))
  assert not gradient[1::2].any() and gradient[::2].any()


@pytest.mark.parametrize('lam', [-18.0, -4.0, 0.0, 3.0, 12.0])
@pytest.mark.parametrize('v', [0.0, 0.3, 1.0])
def test_the_two_routes_of_guidance_differ_by_a_known_factor(z, lam, v):
  """Of one step: w Σ ∇ log p(c|z) shifts the mean, or w β/√α ∇ log p(c|z), where ε is moved."""
  w, lam_next = 1.5, lam + 0.7
  at = Step(1, 2, *(jnp.float32(x) for x in (lam, lam, lam_next)))
  pair = pairs.classifier(eps_fn, conditioning.given(CLASSES), log_prob)

  def step(solver, rule, w):
    guided = guidance.guide(pair, rule, w=w)
    model = lambda z, lam, memory: guided(z, jnp.full(len(z), lam), memory)  # noqa: E731
    return np.asarray(solver(model, z, at, lambda i: jnp.zeros_like(z), Memory(z, z), v=v)[0])

  plain = step(ddpm, rules.classifier_free, 0.0)
  np.testing.assert_allclose(step(ddpm_shifted, rules.mean_shift, 0.0), plain, atol=2e-6)
  of_eps = step(ddpm, rules.classifier_free, w) - plain
  of_mean = step(ddpm_shifted, rules.mean_shift, w) - plain

  def alpha2(lam):
    return 1 / (1 + np.exp(-np.float64(lam)))

  one_minus_beta = alpha2(lam) / alpha2(lam_next)
  posterior = (1 - np.exp(lam - lam_next)) * (1 - alpha2(lam_next))  # β̃, and β below
  beta = 1 - one_minus_beta
  variance = posterior ** (1 - v) * beta**v
  gradient = pairs.class_gradient(log_prob, z, jnp.full(len(z), lam), conditioning.given(CLASSES))
  gradient = np.asarray(gradient, np.float64) / np.sqrt(1 - alpha2(lam))
  np.testing.assert_allclose(of_mean, w * variance * gradient, rtol=1e-4, atol=4e-6)
  if v == 1:
    ratio = np.sqrt(one_minus_beta)
    np.testing.assert_allclose(of_mean, ratio * of_eps, rtol=1e-4, atol=4e-6)
