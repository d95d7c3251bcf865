"""Algorithm 1: what the model is given, and the loss of models whose loss is known."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from cfg_jax.equations import conditioning, diffusion
from cfg_jax.equations import objectives as objective
from cfg_jax.equations.conditioning import Cond

B, IMAGE, NULL = 4096, (2, 2, 3), 10
DEFAULTS = dict(p_uncond=0.1, lambda_min=-20.0, lambda_max=20.0)


def images(seed=0, batch_size=B):
  return np.random.default_rng(seed).uniform(-1, 1, (batch_size, *IMAGE)).astype(np.float32)


def given(seed=0, x=None, **changes):
  """(z, lam, c) as the model gets them, and the classes there were before any was dropped."""
  x = images() if x is None else x
  c = np.arange(len(x)) % NULL
  seen = []

  def eps_fn(*args):
    seen.append(args)
    return jnp.zeros_like(args[0])

  cond = conditioning.given(jnp.asarray(c))
  objective.loss(eps_fn, jax.random.key(seed), x, cond, **DEFAULTS | changes)
  assert len(seen) == 1  # one call serves the conditional and the unconditional model
  z, lam, cond = seen[0]
  return np.asarray(z), np.asarray(lam), np.where(cond.given, cond.value, NULL), c


class TestWhatTheModelIsGiven:
  @pytest.mark.parametrize('p_uncond', [0.0, 0.1, 0.5, 1.0])
  def test_labels_drop_with_probability_p_uncond(self, p_uncond):
    _, _, c, before = given(p_uncond=p_uncond)
    dropped = c == NULL
    np.testing.assert_array_equal(c[~dropped], before[~dropped])
    assert abs(dropped.mean() - p_uncond) <= 5 * np.sqrt(p_uncond * (1 - p_uncond) / B)
    for label in range(NULL if 0 < p_uncond < 1 else 0):  # of every class alike
      assert abs(dropped[before == label].mean() - p_uncond) < 5 * 0.5 / np.sqrt(B / NULL)

  @pytest.mark.parametrize('ends', [(-20.0, 20.0), (-5.0, 3.0)])
  def test_distribution_of_lambda(self, ends):
    """p(λ) of Section 2 has the distribution function 1 − (arctan(e^{−λ/2}) − b)/a."""
    lambda_min, lambda_max = ends
    _, lam, _, _ = given(lambda_min=lambda_min, lambda_max=lambda_max)
    assert lam.dtype == np.float32 and np.all((lambda_min <= lam) & (lam <= lambda_max))
    b = np.arctan(np.exp(-lambda_max / 2))
    a = np.arctan(np.exp(-lambda_min / 2)) - b
    cdf = np.sort(1 - (np.arctan(np.exp(-np.float64(lam) / 2)) - b) / a)
    kolmogorov_smirnov = np.max(np.abs(cdf - (np.arange(B) + 0.5) / B))
    assert kolmogorov_smirnov < 2.0 / np.sqrt(B)  # p ≈ 7e-4

  def test_noise_is_standard_normal_and_z_is_the_forward_process(self):
    """z − α x over σ is the ε of z = α x + σ ε, where it keeps its digits: λ < 5."""
    x = images()
    z, lam, _, _ = given(x=x)
    eps = np.asarray(diffusion.predict_eps(z, x, lam))[lam < 5].ravel()
    n = len(eps)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
      assert abs(np.mean(eps**power) - moment) < 5 * np.sqrt(variance / n)

  def test_drop_lambda_and_noise_are_independent(self):
    """One key each. Two uses of one key correlate by half or more, number by number: so ε is
    compared with the other two image by image, and as the flat sequence that it was drawn as.
    """
    x = np.zeros((B, *IMAGE), np.float32)
    z, lam, c, _ = given(x=x, p_uncond=0.5)
    eps = z / np.asarray(diffusion.alpha_sigma(lam)[1]).reshape(-1, 1, 1, 1)
    values = np.c_[c == NULL, lam, eps.reshape(B, -1), eps.ravel()[:B]]
    correlation = np.corrcoef(values, rowvar=False)
    assert np.max(np.abs(correlation[:2] - np.eye(2, len(correlation)))) < 5 / np.sqrt(B)
    again_z, again_lam, _, _ = given(x=x, p_uncond=0.1)  # p_uncond moves neither λ nor ε
    np.testing.assert_array_equal(again_lam, lam)
    np.testing.assert_array_equal(again_z, z)

  def test_key_decides_everything(self):
    first, same, other = given(seed=0), given(seed=0), given(seed=1)
    for a, b, different in zip(first[:3], same, other):
      np.testing.assert_array_equal(a, b)
      assert np.any(a != different)


class TestLoss:
  @staticmethod
  def loss(eps_fn, x, seed=0, **changes):
    def f(key):
      cond = conditioning.given(jnp.zeros(len(x), jnp.int32))
      return objective.loss(eps_fn, key, x, cond, **DEFAULTS | changes)

    value = jax.jit(f)(jax.random.key(seed))
    assert value.shape == () and value.dtype == jnp.float32
    return float(value)

  def test_of_the_exact_noise_is_0(self):
    x = images()
    assert self.loss(lambda z, lam, c: diffusion.predict_eps(z, x, lam), x) < 1e-6

  def test_of_zero_is_1(self):
    n = B * np.prod(IMAGE)
    assert self.loss(lambda z, lam, c: jnp.zeros_like(z), images()) == pytest.approx(
      1, abs=5 * np.sqrt(2 / n)
    )

  def test_of_a_constant_is_a_mean_and_not_a_sum(self):
    n = B * np.prod(IMAGE)
    assert self.loss(lambda z, lam, c: jnp.full_like(z, 3.0), images()) == pytest.approx(
      10, abs=5 * np.sqrt(38 / n)
    )

  @pytest.mark.parametrize('ends', [(-20.0, 20.0), (-5.0, 3.0)])
  def test_of_the_posterior_mean_of_a_gaussian(self, ends):
    """x ~ N(0, τ²): Var[ε|z_λ] = α²τ²/(α²τ² + σ²), averaged over p(λ), an integral over u."""
    tau = 0.5
    x = tau * np.random.default_rng(0).normal(size=(4 * B, *IMAGE)).astype(np.float32)

    def posterior_mean(z, lam, c):
      alpha, sigma = (a.reshape(-1, 1, 1, 1) for a in diffusion.alpha_sigma(lam))
      return sigma * z / ((alpha * tau) ** 2 + sigma**2)

    def variance(u):
      b = mp.atan(mp.exp(-mp.mpf(ends[1]) / 2))
      a = mp.atan(mp.exp(-mp.mpf(ends[0]) / 2)) - b
      tan2 = mp.tan(a * u + b) ** 2  # e^{−λ} = σ²/α²
      return tau**2 / (tau**2 + tan2)

    exact = float(mp.quad(variance, [0, 1]))
    loss = self.loss(posterior_mean, x, lambda_min=ends[0], lambda_max=ends[1])
    # λ is drawn once an image, so the images' mean losses are what averages out: sd below 0.6.
    assert loss == pytest.approx(exact, abs=5 * 0.6 / np.sqrt(len(x)))
    assert 0.1 < exact < 0.9

  def test_null_class_reaches_the_model(self):
    """A model that is right for ∅ alone: its loss is 1 − p_uncond."""
    x = images()

    def right_for_null(z, lam, cond):
      return jnp.where(cond.given.reshape(-1, 1, 1, 1), 0, diffusion.predict_eps(z, x, lam))

    assert self.loss(right_for_null, x, p_uncond=0.5) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize('w', [0.3, 1.0, 4.0])
def test_one_pass_learns_guidance_by_w(w):
  """To 1e-10, by descent to its fixed point: a model a z + b of each class and ∅, on given noise.

  Whose least squares, without a teacher, are guided ε by w in a and b, as all of it is linear.
  """
  n, random = 40, np.random.default_rng(0)
  c = np.repeat([0, 1, 2], n)  # 2 is ∅
  z = random.normal(c - 1.0, 1 + 0.5 * c)
  eps = 0.4 * z + 0.3 * c + random.normal(size=3 * n)

  def fitted(eps):
    of = [np.polyfit(z[c == k], eps[c == k], 1) for k in range(3)]
    return np.array(of)

  with jax.enable_x64(True):
    noisy = objective.Noisy(
      jnp.array(z)[:, None], jnp.zeros(3 * n), Cond(c % 2, c < 2), eps[:, None]
    )
    assert noisy.z.dtype == jnp.float64

    def of(table, z, lam, cond):
      a, b = table[jnp.where(cond.given, cond.value, 2)].T
      return a[:, None] * z + b[:, None]

    def loss(table, ema):
      taught = objective.model_guidance(functools.partial(of, ema), noisy, w)
      return jnp.sum(objective.losses(functools.partial(of, table), taught)) / n

    @jax.jit
    def descend(tables, _):
      table, ema = tables
      table = table - 0.1 * jax.grad(loss)(table, ema)
      return (table, 0.9 * ema + 0.1 * table), None

    zeros = jnp.zeros((3, 2))
    (table, ema), _ = jax.lax.scan(descend, (zeros, zeros), length=6000)
  plain = fitted(eps)
  want = np.array([*((1 + w) * plain[:2] - w * plain[2]), plain[2]])
  np.testing.assert_allclose(table, want, atol=1e-10)
  np.testing.assert_allclose(ema, want, atol=1e-10)
