"""Paths that are weighted towards other w, against the laws of these w."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import samplers
from cfg_jax.equations.guidance import pairs, reweight
from tests.equations.test_rules_laws import CLASS, WHOLE, cond, eps_fn, recursion
from tests.equations.test_samplers import keys_of, sigmoid, transition

W = np.array([0.6, 0.8, 1.0, 1.2, 1.5])
LAM = samplers.lambda_grid(24, 'uniform', -15.0, 6.0)


def draw(n, lam, w0, first=0, **own):
  with jax.enable_x64(True):
    keys, lam = keys_of(np.arange(first, first + n)), jnp.asarray(lam, float)
    found = jax.jit(
      lambda w0: reweight.draw(
        pairs.null(eps_fn, cond(n)), keys, (1,), lam, jnp.asarray(W), w0=w0, **own
      )
    )(w0)
    return np.asarray(found.x)[..., 0], np.asarray(found.log_weights)


def guided(lam, w, z):
  """x̃ in float64, by hand."""
  alpha, sigma = np.sqrt(sigmoid(lam)), np.sqrt(sigmoid(-lam))
  own, other = (sigma * (z - alpha * m) / (alpha**2 * s + sigma**2) for m, s in (CLASS, WHOLE))
  return (z - sigma * ((1 + w) * own - w * other)) / alpha


@pytest.mark.parametrize('clip_x', [False, True])
def test_a_path_is_as_likely_as_its_densities_say(clip_x):
  """Those of the same path under each w, step by step; of a w₀ that is among them, exactly 0."""
  n, v, w0, lam = 5, 0.3, np.array([0.8, 1.0, 1.0, 1.2, 2.0]), np.float64(LAM)
  x, log_w = draw(n, lam, w0, clip_x=clip_x, v=v)
  with jax.enable_x64(True):
    noises = [
      np.array([jax.random.normal(jax.random.fold_in(k, t), (1,)) for k in keys_of(np.arange(n))])
      for t in range(len(lam))
    ]
  bound = 1 if clip_x else np.inf
  z, expected = noises[0], np.zeros((n, len(W)))
  for t in range(len(lam) - 1):
    of_z, of_x, variance = transition(lam[t], lam[t + 1], v)
    means = [
      of_z * z + of_x * np.clip(guided(lam[t], w, z), -bound, bound) for w in (w0[:, None], W)
    ]
    z_next = means[0] + np.sqrt(variance) * noises[t + 1]
    own, others = ((z_next - m) ** 2 for m in means)
    expected += (own - others) / (2 * variance)
    z = z_next
  np.testing.assert_allclose(log_w, expected, rtol=1e-6, atol=1e-8)
  np.testing.assert_allclose(x, np.clip(guided(lam[-1], W, z), -bound, bound), rtol=1e-9)
  np.testing.assert_array_equal(log_w[np.arange(4), [1, 2, 2, 3]], 0)
  assert clip_x == np.any(np.abs(x) == 1) and np.abs(expected).max() > 0.1


def check_laws(x, log_w, v):
  """Mean and variance under each w against its affine recursion, and weights of mean 1."""
  weights = np.exp(log_w)
  for k, w in enumerate(W):
    p = weights[:, k]
    effective = p.sum() ** 2 / np.sum(p**2)
    assert p.mean() == pytest.approx(1, abs=5 * p.std() / np.sqrt(len(p)) + 1e-12)
    mean, variance = recursion(np.float64(LAM), lambda lam, w=w: w, WHOLE, 'ddpm', v=v)
    average = np.average(x[:, k], weights=p)
    assert average == pytest.approx(mean, abs=4.5 * np.sqrt(variance / effective))
    spread = np.average((x[:, k] - average) ** 2, weights=p)
    assert spread == pytest.approx(variance, rel=4.5 * np.sqrt(2 / effective))
    yield effective


@pytest.mark.parametrize('v', [0.0, 0.3])
def test_the_law_of_each_w_from_one_run(v):
  n = 20_000
  x, log_w = draw(n, LAM, 1.0, v=v)
  effective = list(check_laws(x, log_w, v))
  assert effective[2] == n and n / 10 < effective[0] < effective[1] < n


def test_the_law_of_each_w_from_two_runs_together():
  """Of unequal size: a third of the paths are of w = 1.5, the others of 0.6."""
  (x, log_w), (x2, log_w2) = draw(8_000, LAM, 0.6, v=0.3), draw(4_000, LAM, 1.5, 8_000, v=0.3)
  source = np.repeat([0, 4], [8_000, 4_000])
  both = reweight.mixed(np.concatenate([log_w, log_w2]), source)
  effective = list(check_laws(np.concatenate([x, x2]), both, 0.3))
  assert min(effective) > 4_000
  # of each path: what the two w₀ say, by their shares, is all there is
  np.testing.assert_allclose(np.exp(both[:, [0, 4]]) @ [2 / 3, 1 / 3], 1)
  np.testing.assert_array_equal(reweight.mixed(log_w, source[:8_000]), log_w)


def test_variance_of_the_log_weights_near_w0():
  """(w − w₀)² ∫ E‖ε(z, c) − ε(z)‖² dλ along the guided path, which is Gaussian, of small steps."""
  lam = np.linspace(-12, 6, 400)
  _, log_w = draw(8_000, lam, 1.0, v=0.0)
  mean, variance, integral = 0.0, 1.0, 0.0
  for l, l2 in zip(lam[:-1], lam[1:]):
    at = np.array([mean - 1, mean, mean + 1])  # affine in z: values at three z tell all
    alpha, sigma = np.sqrt(sigmoid(l)), np.sqrt(sigmoid(-l))
    apart = (guided(l, -1, at) - guided(l, 0, at)) * alpha / sigma
    integral += (apart[1] ** 2 + (apart[2] - apart[1]) ** 2 * variance) * (l2 - l)
    of_z, of_x, noise = transition(l, l2, 0.0)
    moved = of_z * at + of_x * guided(l, 1.0, at)
    mean, variance = moved[1], (moved[2] - moved[1]) ** 2 * variance + noise
  for k in (1, 3):
    expected = (W[k] - 1.0) ** 2 * integral
    assert np.var(log_w[:, k]) == pytest.approx(expected, rel=0.12), k
