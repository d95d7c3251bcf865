"""The information budget of guidance, against Kullback-Leibler divergences of exact mixtures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import conditioning, diffusion, mixture
from cfg_jax.equations.guidance import information
from experiments import figure2_gaussians as figure2
from tests.equations.test_samplers import keys_of

EDGES = np.linspace(-14.0, 14.0, 57)


def exact_kl(means, std):
  """KL(p(x|c) ‖ p(x)) of class 0 of 2-D classes, on a grid, in float64."""
  axis = np.linspace(-12, 12, 801)
  x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
  log_p = -np.sum((x - means[:, None]) ** 2, axis=-1) / (2 * std**2)
  own = np.exp(log_p[0])
  gain = log_p[0] - np.logaddexp.reduce(log_p, axis=0) + np.log(len(means))
  return np.sum(own * gain) / np.sum(own)


@pytest.mark.parametrize('scale, std', [(1.0, 1.0), (0.6, 0.7), (4.0, 0.5)])
def test_the_profile_adds_up_to_the_divergence(scale, std):
  """Of Figure 2's classes, of nearer ones, and of ones so far apart that it is ln 3."""
  n, means = 4000, np.asarray(scale * figure2.MEANS, np.float32)
  x = means[0] + std * jax.random.normal(jax.random.key(1), (n, 2))
  eps_fn = functools.partial(mixture.exact_eps, means=means, std=std)
  cond = conditioning.given(jnp.zeros(n, int))
  found = jax.jit(functools.partial(information.profile, eps_fn))(
    keys_of(np.arange(n)), x, cond, jnp.float32(EDGES)
  )
  exact = exact_kl(np.float64(means), std)
  for values, most in zip(found, (0.04, 0.1)):
    of_samples = np.asarray(values, np.float64) @ np.diff(EDGES)
    error = np.std(of_samples) / np.sqrt(n)
    assert error < most * exact
    assert of_samples.mean() == pytest.approx(exact, abs=4 * error)
  assert exact <= np.log(3) + 1e-9 and (scale < 4 or exact > 0.99 * np.log(3))


def test_a_sample_is_its_own_key_alone():
  x = jax.random.normal(jax.random.key(0), (5, 2))
  c = np.arange(5) % 3
  run = functools.partial(information.profile, figure2.exact_eps)
  together = run(keys_of(np.arange(5)), x, conditioning.given(c), jnp.float32(EDGES))
  alone = run(keys_of(np.arange(3, 4)), x[3:4], conditioning.given(c[3:4]), jnp.float32(EDGES))
  for a, b in zip(together, alone):
    np.testing.assert_allclose(a[3], b[0], rtol=1e-4, atol=1e-5)


def test_gain_is_the_difference_of_the_losses():
  """Of predictions that are wrong."""
  x, keys = jnp.zeros((3, 2)), keys_of(np.arange(3))
  edges = jnp.float32([-1.0, 1.0])

  def eps_fn(z, lam, cond):  # of x = 0, z = σ ε
    _, sigma = diffusion.alpha_sigma(lam)
    return z / sigma[:, None] + jnp.where(cond.given, 0.3, 0.5)[:, None]

  found = information.profile(eps_fn, keys, x, conditioning.given(jnp.zeros(3, int)), edges)
  np.testing.assert_allclose(found.apart, 0.5 * 2 * 0.2**2, rtol=1e-4)
  np.testing.assert_allclose(found.gain, 0.5 * 2 * (0.5**2 - 0.3**2), rtol=1e-4)


def test_the_band_is_the_shortest():
  edges = np.array([0.0, 1, 2, 3, 4, 8])
  assert information.band([0, 1, 8, 1, 0], edges, 0.8) == pytest.approx((2, 3))
  assert information.band([0, 1, 8, 1, 0], edges, 0.9) == pytest.approx((1, 3))
  assert information.band([0, 2, 8, 0, 0], edges, 0.9) == pytest.approx((1.5, 3))
  assert information.band([0, 0, 8, 2, 0], edges, 0.9) == pytest.approx((2, 3.5))
  assert information.band([0, 0, 0, 0, 1], edges, 0.5)[1] <= 8  # of a length of 2
  low, high = information.band([0, 0, 0, 0, 1], edges, 0.5)
  assert high - low == pytest.approx(2) and low >= 4
