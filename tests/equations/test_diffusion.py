"""Section 2 against mpmath at 60 digits, on all of λ ∈ [−20, 20], from the same float32 inputs."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from cfg_jax.equations import diffusion

mp.mp.dps = 60
TINY = np.finfo(np.float32).tiny  # below it float32 has fewer digits
LAM = np.unique(np.r_[np.linspace(-20, 20, 161), -1e-3, -1e-6, 1e-7, 1e-4]).astype(np.float32)
# Neighbours in a grid of any T, from one jump over the whole range to a thousandth.
PAIRS = np.array(
  [(lo, hi) for lo in LAM[::4] for hi in LAM[::4] if lo < hi]
  + [(lo, lo + np.float32(step)) for lo in LAM[:-1] for step in (1e-3, 1e-2, 0.125)],
  np.float32,
)
IMAGE = (2, 3, 1)


def exact(x) -> mp.mpf:
  return mp.mpf(float(x))


def alpha2_sigma2(lam) -> tuple[mp.mpf, mp.mpf]:
  return 1 / (1 + mp.exp(-exact(lam))), 1 / (1 + mp.exp(exact(lam)))


def assert_close(values, reference, rel=1e-5):
  """Every value within rel of its reference, wherever float32 represents that normally."""
  values = np.ravel(values)
  assert len(values) == len(reference)
  for i, (value, ref) in enumerate(zip(values, reference)):
    if abs(ref) >= TINY or ref == 0:
      assert abs(exact(value) - ref) <= rel * abs(ref), (i, value, mp.nstr(ref, 10))


@pytest.fixture(params=['eager', 'jit'])
def compiled(request):
  """Both ways a user runs it: a compiler may rewrite what is stable op by op."""
  return jax.jit if request.param == 'jit' else lambda f: f


class TestLogSnr:
  @staticmethod
  def reference(u, lambda_min, lambda_max):
    b = mp.atan(mp.exp(-mp.mpf(lambda_max) / 2))
    a = mp.atan(mp.exp(-mp.mpf(lambda_min) / 2)) - b
    return [-2 * mp.log(mp.tan(a * exact(x) + b)) for x in u]

  def test_relative_error_also_where_lambda_crosses_zero(self, compiled):
    near = np.r_[1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    u = np.r_[np.linspace(0, 1, 401), near, 1 - near, 0.5 - near, 0.5 + near].astype(np.float32)
    assert np.min(np.abs(u - 0.5)[u != 0.5]) < 2e-7
    lam = compiled(diffusion.log_snr)(u)
    assert_close(lam[u != 0.5], self.reference(u[u != 0.5], -20, 20), rel=2e-6)
    assert np.all(lam[u == 0.5] == 0)

  @pytest.mark.parametrize('ends', [(-10, 20), (-5, 3), (-20, -5), (5, 20), (-30, 10)])
  def test_other_ends(self, compiled, ends):
    """Here λ = 0 falls between float32 values of u: near it the error is absolute."""
    u = np.linspace(0, 1, 401, dtype=np.float32)
    reference = np.array(self.reference(u, *ends), float)
    lam = compiled(lambda u: diffusion.log_snr(u, *map(float, ends)))(u)
    np.testing.assert_allclose(lam, reference, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(lam[jnp.array([0, -1])], ends[::-1], rtol=1e-6)

  def test_shape_and_default_ends(self):
    assert diffusion.log_snr(0.25).shape == ()
    assert diffusion.log_snr(jnp.zeros((2, 3))).shape == (2, 3)
    assert diffusion.log_snr(0.0) == pytest.approx(20) and diffusion.log_snr(1.0) == -20


class TestForward:
  def test_alpha_sigma(self, compiled):
    alpha, sigma = compiled(diffusion.alpha_sigma)(LAM)
    squares = [alpha2_sigma2(lam) for lam in LAM]
    assert_close(alpha, [mp.sqrt(a) for a, _ in squares], rel=1e-6)
    assert_close(sigma, [mp.sqrt(s) for _, s in squares], rel=1e-6)

  def test_diffuse_and_its_two_inverses(self, compiled):
    """Signs are such that no sum cancels: what cancellation costs is not the formula's doing."""
    rng = np.random.default_rng(0)
    x, eps = np.abs(rng.normal(size=(2, len(LAM), *IMAGE))).astype(np.float32)
    each = [(exact(lam), *map(mp.sqrt, alpha2_sigma2(lam))) for lam in LAM]
    flat = np.prod(IMAGE)
    each = [e for e in each for _ in range(flat)]
    pairs = [(exact(p), exact(q)) for p, q in zip(x.ravel(), eps.ravel())]

    z = compiled(diffusion.diffuse)(x, eps, LAM)
    assert_close(z, [a * p + s * q for (_, a, s), (p, q) in zip(each, pairs)])
    x_back = compiled(diffusion.predict_x)(x, -eps, LAM)  # x stands for z
    assert_close(x_back, [(p + s * q) / a for (_, a, s), (p, q) in zip(each, pairs)])
    eps_back = compiled(diffusion.predict_eps)(x, -eps, LAM)
    assert_close(eps_back, [(p + a * q) / s for (_, a, s), (p, q) in zip(each, pairs)])

  def test_inverses_with_cancellation_are_backward_stable(self):
    """The error of predict_x∘diffuse is float32's ε times the terms that cancel, no more."""
    rng = np.random.default_rng(1)
    x, eps = rng.normal(size=(2, len(LAM), *IMAGE)).astype(np.float32)
    z = diffusion.diffuse(x, eps, LAM)
    alpha, sigma = (np.float64(a).reshape(-1, 1, 1, 1) for a in diffusion.alpha_sigma(LAM))
    terms = np.abs(alpha * x) + np.abs(sigma * eps)
    ulp = np.finfo(np.float32).eps
    assert np.all(np.abs(diffusion.predict_x(z, eps, LAM) - x) <= 4 * ulp * terms / alpha)
    assert np.all(np.abs(diffusion.predict_eps(z, x, LAM) - eps) <= 4 * ulp * terms / sigma)

  def test_scalar_lambda_and_wrong_shape(self):
    x, eps = jnp.ones((2, *IMAGE)), jnp.zeros((2, *IMAGE))
    for f in (diffusion.diffuse, diffusion.predict_x, diffusion.predict_eps):
      np.testing.assert_array_equal(f(x, eps, 1.5), f(x, eps, jnp.full(2, 1.5)))
      with pytest.raises(AssertionError):
        f(x, eps, jnp.zeros(3))


@functools.cache
def forward_variance(lam, lam_next) -> tuple[mp.mpf, mp.mpf]:
  """α_λ/α_λ' and the variance of q(z_λ|z_λ'), from q(z_λ|x) = ∫ q(z_λ|z_λ') q(z_λ'|x)."""
  (alpha2, sigma2), (alpha2_next, sigma2_next) = alpha2_sigma2(lam), alpha2_sigma2(lam_next)
  return mp.sqrt(alpha2 / alpha2_next), sigma2 - alpha2 / alpha2_next * sigma2_next


@functools.cache
def bayes(lam, lam_next) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
  """q(z_λ'|z_λ, x): the mean's coefficients of z_λ and x, and the variance.

  The prior q(z_λ'|x) times the likelihood q(z_λ|z_λ'), by adding precisions.
  """
  alpha2_next, sigma2_next = alpha2_sigma2(lam_next)
  ratio, variance = forward_variance(lam, lam_next)
  precision = 1 / sigma2_next + ratio**2 / variance
  return (
    ratio / variance / precision,
    mp.sqrt(alpha2_next) / sigma2_next / precision,
    1 / precision,
  )


class TestReverse:
  def test_v_0_is_bayes_rule(self, compiled):
    lam, lam_next = PAIRS.T
    one, zero = jnp.ones((len(lam), 1)), jnp.zeros((len(lam), 1))
    reverse = compiled(diffusion.reverse)
    posterior = [bayes(*pair) for pair in PAIRS]
    of_z, variance = reverse(one, zero, lam, lam_next, 0.0)
    of_x, _ = reverse(zero, one, lam, lam_next, 0.0)
    assert_close(of_z, [p[0] for p in posterior])
    assert_close(of_x, [p[1] for p in posterior])
    assert_close(variance, [p[2] for p in posterior])

  def test_v_1_is_the_forward_variance(self, compiled):
    lam, lam_next = PAIRS.T
    one = jnp.ones((len(lam), 1))
    _, variance = compiled(diffusion.reverse)(one, one, lam, lam_next, 1.0)
    assert_close(variance, [forward_variance(*pair)[1] for pair in PAIRS])

  @pytest.mark.parametrize('v', [0.2, 0.3])
  def test_v_between_interpolates_the_logarithm(self, compiled, v):
    lam, lam_next = PAIRS.T
    one = jnp.ones((len(lam), 1))
    mean, variance = compiled(diffusion.reverse)(one, one, lam, lam_next, v)
    reference = [
      bayes(*p)[2] ** (1 - exact(v)) * forward_variance(*p)[1] ** exact(v) for p in PAIRS
    ]
    assert_close(variance, reference)
    assert_close(mean, [bayes(*p)[0] + bayes(*p)[1] for p in PAIRS])  # v leaves the mean alone

  def test_shapes(self):
    """lam (B,) against (B, H, W, C), the variance broadcasting; a scalar is every sample's."""
    z = x = jnp.ones((2, *IMAGE))
    mean, variance = diffusion.reverse(z, x, jnp.array([-3.0, 1.0]), jnp.array([0.0, 4.0]), 0.3)
    assert mean.shape == z.shape and jnp.broadcast_shapes(variance.shape, z.shape) == z.shape
    for i, (lam, lam_next) in enumerate([(-3.0, 0.0), (1.0, 4.0)]):
      alone = diffusion.reverse(z[:1], x[:1], lam, lam_next, 0.3)
      np.testing.assert_allclose(mean[i], alone[0][0], rtol=1e-6)
      np.testing.assert_allclose(jnp.ravel(variance)[i], alone[1], rtol=1e-6)
