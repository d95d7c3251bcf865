"""Particles that are weighted towards p̃, against p̃."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import conditioning, guidance, samplers
from cfg_jax.equations.guidance import pairs, rules, smc
from experiments import figure2_gaussians as figure2
from tests.equations.test_rules_laws import CLASS, WHOLE, cond, eps_fn, recursion
from tests.equations.test_samplers import keys_of, sigmoid, transition
from tests.experiments.test_figure2 import exact_radial

LAM = samplers.lambda_grid(64, 'uniform', -10.0, 10.0)


def of_figure2(c, k):
  return pairs.null(figure2.exact_eps, conditioning.given(jnp.repeat(jnp.asarray(c), k)))


def test_systematic_indices_are_by_weight_to_within_one():
  log_w = np.random.default_rng(0).normal(size=50).astype(np.float32) * 2
  shares = np.exp(log_w - np.logaddexp.reduce(log_w))
  counts = np.zeros(50)
  for i in range(200):
    found = np.asarray(smc.systematic(jax.random.key(i), log_w, 30))
    of_one = np.bincount(found, minlength=50)
    assert len(found) == 30 and np.all(np.diff(found) >= 0)
    assert np.all(np.abs(of_one - 30 * shares) < 1 + 1e-4)
    counts += of_one / 200
  np.testing.assert_allclose(counts, 30 * shares, atol=0.15)  # four errors of 200


@pytest.mark.parametrize('clip_x', [False, True])
def test_one_particle_is_guided_ancestral_sampling(clip_x):
  """Of the particle's own key, whatever its weight."""
  c, w, keys = np.arange(6) % 3, np.float32([0, 0.5, 1, 2, 4, 8]), keys_of(np.arange(6))
  found = jax.jit(
    lambda w: smc.draw(of_figure2(c, 1), keys, (2,), LAM, w=w, particles=1, v=0.3, clip_x=clip_x)
  )(w)
  own = jax.vmap(lambda key: jax.random.fold_in(key, smc.PARTICLES))(keys)
  model = guidance.guide(of_figure2(c, 1), rules.classifier_free, w=w)
  x = samplers.sample_model(model, own, (2,), LAM, sampler='ddpm', v=0.3, clip_x=clip_x)
  np.testing.assert_allclose(found.x[:, 0], x, atol=1e-5)
  np.testing.assert_allclose(found.effective, 1)


def test_a_sample_is_its_own_keys_alone():
  """Beside others, or by itself; and what is picked of it."""
  draw = jax.jit(
    lambda keys, c, k: smc.draw(of_figure2(c, k), keys, (2,), LAM, w=3.0, particles=k),
    static_argnums=2,
  )
  together = draw(keys_of(np.arange(5)), np.arange(5) % 3, 64)
  alone = draw(keys_of(np.arange(3, 4)), np.zeros(1, int), 64)
  for a, b in zip(together, alone):
    np.testing.assert_allclose(a[3], b[0], rtol=1e-4, atol=1e-4)
  assert together.effective.min() < 32  # so that it was resampled
  a = smc.pick(keys_of(np.arange(5)), together, 3)
  b = smc.pick(keys_of(np.arange(3, 4)), alone, 3)
  np.testing.assert_allclose(a[3], b[0], rtol=1e-4, atol=1e-4)


def path_of(lam, mean, variance, v):
  """(precision, precision · mean, log of the density at 0) of z_1 … z_T by ancestral sampling.

  Of x ~ N(mean, variance), in float64: T Gaussians of which each knows the one before.
  """
  n = len(lam)
  precision, shift, at_0 = np.zeros((n, n)), np.zeros(n), -0.5 * n * np.log(2 * np.pi)
  precision[0, 0] = 1
  for t in range(n - 1):
    z_z, z_x, noise = transition(lam[t], lam[t + 1], v)
    alpha, sigma2 = np.sqrt(sigmoid(lam[t])), sigmoid(-lam[t])
    gain = alpha * variance / (alpha**2 * variance + sigma2)  # x̃ = mean + gain (z − α mean)
    a, b = z_z + z_x * gain, z_x * mean * (1 - alpha * gain)
    row = np.zeros(n)
    row[t], row[t + 1] = -a, 1
    precision += np.outer(row, row) / noise
    shift += b * row / noise
    at_0 -= 0.5 * (np.log(noise) + b**2 / noise)
  return precision, shift, at_0


@pytest.mark.parametrize('below, v', [(0.0, 0.3), (0.9, 0.0), (0.9, 0.3)])
def test_gaussians_tilted_path_at_finite_steps(below, v):
  """Mean, variance and evidence of p(path|c)^{1+w} p(path)^{−w}, weighted alone or resampled."""
  k, n, w = 4000, 4, 1.0
  lam = samplers.lambda_grid(60, 'uniform', -12.0, 10.0)
  (p, h, at_0), (p_u, h_u, at_0_u) = (path_of(np.float64(lam), *x, v) for x in (CLASS, WHOLE))
  precision, shift = (1 + w) * p - w * p_u, (1 + w) * h - w * h_u
  means, covariance = np.linalg.solve(precision, shift), np.linalg.inv(precision)
  log_evidence = (1 + w) * at_0 - w * at_0_u + 0.5 * shift @ means
  log_evidence += 0.5 * (len(lam) * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1])
  _, of_z = recursion(np.float64(lam[-1:]), lambda lam: w, WHOLE, 'ddpm')  # slope² of x̃ over z
  found = jax.jit(
    lambda keys: smc.draw(
      pairs.null(eps_fn, cond(n * k)),
      keys,
      (1,),
      lam,
      w=w,
      particles=k,
      v=v,
      resample_below=below,
    )
  )(keys_of(np.arange(n)))
  weights = np.exp(np.asarray(found.log_weights, np.float64))
  np.testing.assert_allclose(weights.mean(1), 1, rtol=1e-4)
  x = np.asarray(found.x)[..., 0]
  average = np.average(x, weights=weights)
  variance = covariance[-1, -1] * of_z
  assert average == pytest.approx(means[-1], abs=5 * np.sqrt(variance / 10_000))
  assert np.average((x - average) ** 2, weights=weights) == pytest.approx(variance, rel=0.04)
  assert np.mean(found.log_evidence) == pytest.approx(log_evidence, abs=0.03)
  rises = np.diff(np.asarray(found.effective), axis=1) > 0.05 * k  # after it was resampled
  assert np.any(rises) == (below > 0)


@pytest.mark.slow
@pytest.mark.parametrize('w', [0.5, 1.0, 2.0, 4.0])
def test_figure_2s_tilt(w):
  """At the paper's grid of 256 steps and v = 0.3, as the figure is drawn."""
  found = figure2.weigh(w)
  mean, std = figure2.radial(found.x, found.c, found.weights)
  exact_mean, exact_std = exact_radial(w)
  within = (0.01, 0.02) if w <= 2 else (0.03, 0.03)
  assert mean == pytest.approx(exact_mean, rel=within[0])
  assert std == pytest.approx(exact_std, rel=within[1])
  assert 0 < found.effective < figure2.PARTICLES


def test_log_ratio_is_the_posterior():
  """log p(c|x)/p(c) of Figure 2's mixture, whatever w; its error falls as 1/√T."""
  n, c = 600, np.arange(600) % 3
  draw = jax.jit(
    lambda lam, w: smc.draw(of_figure2(c, 1), keys_of(np.arange(n)), (2,), lam, w, particles=1, v=0)
  )
  errors = {}
  for w, steps in ((0.0, 200), (0.0, 800), (1.0, 200)):
    found = draw(samplers.lambda_grid(steps, 'uniform', -10.0, 10.0), w)
    x, log_ratio = np.asarray(found.x)[:, 0], np.asarray(found.log_ratio)[:, 0, -1]
    log_p = -np.sum((x - figure2.MEANS[:, None]) ** 2, axis=-1) / 2
    exact = (log_p - np.logaddexp.reduce(log_p, axis=0))[c, np.arange(n)] + np.log(3)
    errors[w, steps] = np.sqrt(np.mean((log_ratio - exact) ** 2))
    assert np.std(exact) > 0.1
  assert errors[0.0, 200] < 0.1 and errors[1.0, 200] < 0.1, errors
  assert errors[0.0, 200] / errors[0.0, 800] == pytest.approx(2, rel=0.2), errors
