"""Feedback guidance, and how likely a path is under each side, against float64 by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.equations import conditioning, guidance, mixture, samplers
from cfg_jax.equations.guidance import pairs, rules, smc
from tests.equations.test_samplers import keys_of, sigmoid, transition

MEANS = np.array([[0.0, 1.2], [1.0, -0.6], [-1.0, -0.6]])
STD, N = 0.5, 6
C = np.arange(N) % 3


def lam_of(steps=24):
  return samplers.lambda_grid(steps, 'uniform', -9.0, 8.0)


def pair_of(c=C):
  def eps_fn(z, lam, cond):
    return mixture.exact_eps(z, lam, cond, means=jnp.asarray(MEANS), std=STD)

  return pairs.null(eps_fn, conditioning.given(jnp.asarray(c)))


@functools.partial(jax.jit, static_argnums=(0, 3))
def run(rule, keys, lam, clip_x, knobs):
  model = guidance.guide(pair_of(), rule, **knobs)
  return samplers.sample_model(model, keys, (2,), lam, sampler='ddpm', clip_x=clip_x, v=0.3)


def draw(rule, keys, lam, clip_x=False, **knobs):
  """Samples (N, 2) of the rule by `ddpm`, with knobs that are traced."""
  of_each = {k: jnp.broadcast_to(jnp.asarray(x, float), N) for k, x in knobs.items()}
  return np.asarray(run(rule, keys, lam, clip_x, of_each))


def by_hand(noise, lam, w, pi, temperature, offset):
  """(x, the scale of each call): the rule as its paper and code have it, in NumPy."""
  noise, lam = np.float64(noise), np.float64(lam)
  z, log_ratio, scales, before = noise[0], np.zeros(N), [], 0.0
  for t, l in enumerate(lam):
    alpha, sigma = np.sqrt(sigmoid(l)), np.sqrt(sigmoid(-l))
    variance = (alpha * STD) ** 2 + sigma**2
    away = z[:, None] - alpha * MEANS  # (N, 3, 2)
    log_p = -np.sum(away**2, axis=-1) / (2 * variance)
    weights = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1)[:, None])
    eps_c = sigma / variance * away[np.arange(N), C]
    eps_u = sigma / variance * np.sum(weights[..., None] * away, axis=1)
    p = 1 - 2 / np.pi * np.arctan(np.exp(-l / 2))  # the share of the paper's grid
    log_ratio, before = log_ratio + offset * (p - before), p
    least = np.log((1 - pi) * (1 + w) / np.maximum(w, 1e-300))
    log_ratio = np.clip(log_ratio, least, np.maximum(least, 3))
    scale = np.exp(log_ratio) / (np.exp(log_ratio) - (1 - pi))
    scales.append(scale)
    eps = eps_u + scale[:, None] * (eps_c - eps_u)
    x, x_c, x_u = (np.clip((z - sigma * e) / alpha, -1, 1) for e in (eps, eps_c, eps_u))
    if t == len(lam) - 1:
      return x, np.array(scales)
    of_z, of_x, variance = transition(l, lam[t + 1], 0.3)
    mean, mean_c, mean_u = (of_z * z + of_x * a for a in (x, x_c, x_u))
    z = mean + np.sqrt(variance) * noise[t + 1]
    square_c, square_u = (np.sum((z - m) ** 2, axis=1) for m in (mean_c, mean_u))
    log_ratio = log_ratio + temperature * (square_u - square_c) / (2 * variance)


def test_it_is_the_papers_to_the_last_digit():
  """Where x is clipped, as are both sides; each sample has knobs of its own."""
  knobs = {
    'w': np.array([0.0, 0.5, 3.0, 3.0, 8.0, 2.0]),
    'pi': np.array([0.9, 0.9, 0.999, 0.6, 0.9, 0.2]),
    'temperature': np.array([1.0, 1.0, 0.3, 1.0, 2.0, 0.0]),
    'offset': np.array([0.0, -7.0, -14.6, 0.0, -10.0, 2.0]),
  }
  with jax.enable_x64(True):
    keys, lam = keys_of(np.arange(N)), lam_of()
    noise = [
      jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), (2,)))(keys)  # noqa: B023
      for t in range(len(lam))
    ]
    found = draw(rules.feedback, keys, lam, True, **knobs)
    exact, scales = by_hand(noise, lam, **knobs)
  np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)
  assert np.all(scales[:, 0] == 1)  # w = 0
  assert np.all(scales <= 1 + knobs['w'] + 1e-9) and np.all(scales >= 1)
  moved = (scales.max(axis=0) - scales.min(axis=0))[1:]
  assert np.all(moved > 0.05) and np.sum(scales.max(axis=0)[1:] > 0.999 * (1 + knobs['w'][1:])) >= 3


def test_the_log_ratio_is_that_of_one_particle(monkeypatch):
  """What `smc` records, at each step of a path that is guided by w."""
  found = []

  def plain(towards, away, z, lam, memory, *, w):
    own, log_ratio = memory
    jax.debug.callback(found.append, log_ratio, ordered=True)
    return rules.classifier_free(towards, away, z, lam, None, w=w)[0], own

  monkeypatch.setitem(rules.LOOKS_BACK, plain, jnp.zeros_like)
  w = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 8.0])
  with jax.enable_x64(True):
    keys, lam = keys_of(np.arange(N)), lam_of()
    own = jax.vmap(lambda key: jax.random.fold_in(key, smc.PARTICLES))(keys)
    draw(plain, own, lam, w=w)
    jax.effects_barrier()
    exact = smc.draw(pair_of(), keys, (2,), lam, w, particles=1, v=0.3).log_ratio[:, 0]
  assert len(found) == len(lam) and not np.any(found[0])
  np.testing.assert_allclose(np.stack(found[1:], axis=1), exact, rtol=1e-9, atol=1e-9)
  assert np.abs(exact[:, -1]).min() > 0.1


def test_w_0_is_the_conditional_model_to_the_bit():
  """In a batch of such, of which the ∅ half is not computed, and beside others."""
  keys, lam = keys_of(np.arange(N)), lam_of()
  unguided = draw(rules.classifier_free, keys, lam, w=0.0)
  np.testing.assert_array_equal(draw(rules.feedback, keys, lam, w=0.0, pi=0.9), unguided)
  w = np.where(np.arange(N) % 2, 2.0, 0.0)
  mixed = draw(rules.feedback, keys, lam, w=w, pi=0.9)
  plain = draw(rules.classifier_free, keys, lam, w=w)
  np.testing.assert_array_equal(mixed[::2], plain[::2])
  assert np.abs(mixed - plain)[1::2].max() > 1e-3
