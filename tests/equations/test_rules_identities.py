"""Guidance rules that are another one at some value of a knob, and by hand in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import diffusion
from cfg_jax.equations.guidance import rules
from tests.equations.test_rules_laws import gaussian


def two(seed=0, n=6, shape=(4, 3, 1), lams=(-20, 12)):
  """Predictions of z by two models, that are no Gaussian's: (towards, away, z, lam, memory)."""
  with jax.enable_x64(True):
    z, a, b = np.random.default_rng(seed).normal(size=(3, n, *shape))
    lam = jnp.linspace(*lams, n)
    sides = [
      diffusion.Prediction(diffusion.predict_x(z, eps, lam), jnp.asarray(eps)) for eps in (a, b)
    ]
  return *sides, jnp.asarray(z), lam, jnp.zeros_like(z)


def eps_of(rule, sides, **knobs):
  with jax.enable_x64(True):
    return np.asarray(rule(*sides, **knobs)[0].eps)


W = np.array([0.0, 0.3, 1.0, 2.0, 4.0, -1.0])


class TestIdentities:
  """Rules that are another one at some value of a knob."""

  def plain(self, sides, w=W):
    return eps_of(rules.classifier_free, sides, w=w)

  @pytest.mark.parametrize(
    'rule, knobs, more_w',
    [
      ('apg', {'eta': 1.0, 'radius': 0.0, 'momentum': 0.0}, 0),
      ('apg_comfyui', {'eta': 1.0, 'radius': 0.0, 'momentum': 0.0}, 1),
      ('apg_diffusers', {'eta': 1.0, 'radius': 0.0, 'momentum': 0.0}, 0),
      ('rescale', {'phi': 0.0}, 0),
      ('adaptive', {'theta': 1.0}, 0),
      ('beta', {'a': 1.0, 'b': 1.0}, 0),
      ('interval', {'lo': -30.0, 'hi': 30.0}, 0),
    ],
  )
  def test_is_classifier_free(self, rule, knobs, more_w):
    with jax.enable_x64(True):
      sides = two()
      found, exact = eps_of(rules.RULES[rule], sides, w=W, **knobs), self.plain(sides, W + more_w)
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)

  def test_three_rules_of_one_name_differ(self):
    sides = two()
    found = [eps_of(rules.RULES[f'apg{x}'], sides, w=W) for x in ('', '_comfyui', '_diffusers')]
    for i, a in enumerate(found):
      for b in found[:i]:
        assert np.abs(a - b).max(axis=(1, 2, 3)).min() > 0.1

  def test_apg_by_hand(self):
    """Two calls, so that momentum counts, with a radius that shortens some samples alone."""
    with jax.enable_x64(True):
      c, u, z, lam, memory = two(lams=(-2, 2))
      knobs = dict(w=W, eta=0.3, radius=5.0, momentum=-0.5)
      _, memory = rules.apg(c, u, z, lam, memory, **knobs)
      *second, z, _, _ = two(1, lams=(-2, 2))
      prediction, _ = rules.apg(*second, z, lam, memory, **knobs)
    x, x_u = (np.asarray(p.x).reshape(6, -1) for p in second)
    first = np.asarray(c.x - u.x).reshape(6, -1)
    lengths = []
    for i in range(6):
      g = x[i] - x_u[i] - 0.5 * first[i]
      lengths.append(np.linalg.norm(g))
      g *= min(1, 5 / lengths[-1])
      along = g @ x[i] / (x[i] @ x[i]) * x[i]
      exact = x[i] + W[i] * (g - along + 0.3 * along)
      np.testing.assert_allclose(prediction.x[i].ravel(), exact, rtol=1e-9, atol=1e-12)
    assert min(lengths) < 5 < max(lengths)
    np.testing.assert_allclose(
      prediction.eps, diffusion.predict_eps(z, prediction.x, lam), rtol=1e-4, atol=1e-5
    )

  def test_apg_guides_no_centred_gaussian(self):
    """Both x̃ are multiples of z there, so nothing is left across x_c."""
    with jax.enable_x64(True):
      _, _, z, lam, memory = two()
      sides = [
        diffusion.Prediction(diffusion.predict_x(z, e, lam), e)
        for e in (gaussian(z, lam, 0, s) for s in (0.5, 1.3))
      ]
    found = eps_of(rules.apg, (*sides, z, lam, memory), w=W, momentum=0.0)
    np.testing.assert_allclose(found, sides[0].eps, atol=1e-9)

  def test_rescaled_deviation_is_that_of_the_conditional(self):
    sides = two()
    found = eps_of(rules.rescale, sides, w=W, phi=1.0)
    np.testing.assert_allclose(
      found.std(axis=(1, 2, 3)), np.asarray(sides[0].eps).std(axis=(1, 2, 3)), rtol=1e-9
    )
    scale = found / self.plain(sides)
    np.testing.assert_allclose(scale, np.broadcast_to(scale[:, :1, :1], scale.shape), rtol=1e-9)

  def test_tcfg_projects_on_the_first_singular_vector(self):
    sides = two()
    found = eps_of(rules.tcfg, sides, w=W)
    for i in range(6):
      rows = np.stack([np.asarray(s.eps[i]).ravel() for s in (sides[1], sides[0])])
      v = np.linalg.svd(rows)[2][0]
      exact = (1 + W[i]) * rows[1] - W[i] * (rows[0] @ v) * v
      np.testing.assert_allclose(found[i].ravel(), exact, rtol=1e-8, atol=1e-8)

  def test_cfg_zero_by_hand(self):
    """In v = ε − x; and collinear velocities are not guided."""
    with jax.enable_x64(True):
      c, u, z, lam, memory = two(lams=(-3, 3))
      prediction, _ = rules.cfg_zero(c, u, z, lam, memory, w=W)
      alpha, sigma = diffusion.alpha_sigma(diffusion.over_batch(lam, z))
      np.testing.assert_allclose(alpha * prediction.x + sigma * prediction.eps, z, atol=1e-9)
      twice = 2 * (c.eps - c.x)
      eps = (z + alpha * twice) / (alpha + sigma)
      collinear = diffusion.Prediction(eps - twice, eps)
      np.testing.assert_allclose(
        rules.cfg_zero(c, collinear, z, lam, memory, w=W)[0].eps, c.eps, rtol=1e-8, atol=1e-8
      )
    v, v_u = (np.asarray(p.eps - p.x).reshape(6, -1) for p in (c, u))
    k = (v * v_u).sum(1) / (v_u**2).sum(1)
    exact = (1 + W)[:, None] * v - (W * k)[:, None] * v_u
    found = np.asarray(prediction.eps - prediction.x).reshape(6, -1)
    np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-8)

  def test_progress_is_the_share_of_the_papers_grid(self):
    lam = diffusion.log_snr(jnp.linspace(1, 0, 11), -20.0, 20.0)
    p, left = rules.w_of_lambda.progress(lam)
    np.testing.assert_allclose(p, np.linspace(0, 1, 11), atol=1e-4)
    np.testing.assert_allclose(p + left, 1, rtol=1e-6)
