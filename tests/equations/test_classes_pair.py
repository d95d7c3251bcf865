"""The unconditional prediction from those of all classes, against the exact mixture's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import conditioning, diffusion, guidance, mixture, samplers
from cfg_jax.equations.guidance import pairs, rules
from tests.equations.test_rules_cost import LAM, MEANS, N, drawer
from tests.equations.test_samplers import keys_of

STD = 0.5
classes = functools.partial(pairs.classes, num_classes=len(MEANS))


def eps_fn(z, lam, cond):
  return mixture.exact_eps(z, lam, cond, means=jnp.asarray(MEANS, z.dtype), std=STD)


def test_with_the_exact_posterior_it_is_the_mixtures():
  with jax.enable_x64(True):
    lam = jnp.linspace(-12, 12, 30)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(30, 2)))
    alpha, sigma = (a[:, None] for a in diffusion.alpha_sigma(lam))
    away = z[:, None] - alpha[..., None] * MEANS
    log_p = -jnp.sum(away**2, axis=-1) / (2 * ((alpha * STD) ** 2 + sigma**2))
    cond = conditioning.given(jnp.arange(30) % 3)
    found = classes(eps_fn, cond)(z, lam, False, log_p + 7.0)
    exact = pairs.null(eps_fn, cond)(z, lam)
    for a, b in zip(found[:2], exact):
      np.testing.assert_allclose(a.eps, b.eps, rtol=0, atol=1e-12)
    for k, side in enumerate(found[2:]):
      own = eps_fn(z, lam, conditioning.given(jnp.full(30, k)))
      np.testing.assert_allclose(side.eps, own, rtol=0, atol=1e-12)


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw(make_pair, rule, lam, knobs):
  n = 300
  cond = conditioning.given(jnp.arange(n) % 3)
  model = guidance.guide(make_pair(eps_fn, cond), rule, **knobs)
  settings = dict(sampler='ddpm', clip_x=False, v=0.0)
  return samplers.sample_model(model, keys_of(jnp.arange(n)), (2,), lam, **settings)


@pytest.mark.parametrize('rule', ['classifier_free', 'feedback'])
def test_samples_are_those_of_the_null_pair_as_steps_grow(rule):
  """From the same noise, with p(k|z) by the path, whose error falls as 1/√T."""
  knobs = {'w': 1.0} | ({'pi': 0.5, 'offset': 0.0} if rule == 'feedback' else {})
  errors = []
  for steps in (64, 576):
    lam = samplers.lambda_grid(steps, 'uniform', -10.0, 8.0)
    both = [np.asarray(draw(p, rules.RULES[rule], lam, knobs)) for p in (classes, pairs.null)]
    errors.append(np.sqrt(np.mean((both[0] - both[1]) ** 2)))
  unguided = np.asarray(draw(pairs.null, rules.RULES[rule], lam, knobs | {'w': 0.0}))
  moved = np.sqrt(np.mean((both[1] - unguided) ** 2))
  assert errors[0] < 0.3 * moved and errors[1] < 0.6 * errors[0], (errors, moved)


def test_every_step_is_one_call_of_all_classes():
  """Of an interval too: the path tells of every step. Where all w are 0 it is the class's alone."""
  seen = []
  run = drawer('interval', classes, seen=seen)
  for w, rows in ((2.0, 3 * N), (0.0, N)):
    seen.clear()
    x = run(w=w, lo=-2.0, hi=3.0)
    assert [r for r, _ in seen] == [rows] * len(LAM)
    knobs = {'w': w, 'lo': -2.0, 'hi': 3.0}
    counted = pairs.calls_along('classes', 'interval', knobs, np.asarray(LAM), num_classes=3)
    assert counted == (rows // N * len(LAM), 0)
  np.testing.assert_array_equal(x, drawer('classifier_free')(w=0.0))
