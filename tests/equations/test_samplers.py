"""Algorithm 2 against exact oracles: a Gaussian's moments, and a float64 twin on a mixture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import diffusion, guidance
from cfg_jax.equations import samplers as sampling
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.guidance import pairs, rules
from experiments import figure2_gaussians as mixture

NULL = mixture.NUM_CLASSES  # in these tests: ∅
ENDS = dict(lambda_min=-20.0, lambda_max=20.0)
DEFAULTS = dict(num_steps=16, v=0.3, clip_x=True, **ENDS)


@jax.jit
def keys_of(indices, seed=0):
  return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(indices)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def exact_grid(num_steps):
  """Section 2 in float64: λ from uniformly spaced u, towards λ_max."""
  b = np.arctan(np.exp(-20 / 2))
  a = np.arctan(np.exp(20 / 2)) - b
  return -2 * np.log(np.tan(a * np.linspace(1, 0, num_steps) + b))


def transition(lam, lam_next, v):
  """Section 2 in float64: the mean's coefficients of z_λ and x, and the variance, for one step."""
  alpha, alpha_next = np.sqrt(sigmoid(lam)), np.sqrt(sigmoid(lam_next))
  one_minus_r = 1 - np.exp(lam - lam_next)
  variance = (one_minus_r * sigmoid(-lam_next)) ** (1 - v) * (one_minus_r * sigmoid(-lam)) ** v
  return np.exp(lam - lam_next) * alpha_next / alpha, one_minus_r * alpha_next, variance


class TestGrid:
  @pytest.mark.parametrize('num_steps', [2, 3, 32, 128, 256, 1024])
  def test_uniform_u_with_both_ends(self, num_steps):
    lam = np.asarray(sampling.lambda_grid(num_steps))
    assert lam.shape == (num_steps,) and np.all(np.diff(lam) > 0)
    assert lam[0] == -20 and lam[-1] == 20
    np.testing.assert_allclose(lam, exact_grid(num_steps), rtol=2e-6, atol=2e-6)

  @pytest.mark.parametrize('ends', [(-3.2, 1.3), (-20.0, 4.9), (-9.1, 13.3)])
  def test_other_ends_are_exact(self, ends):
    """Two of these round to a neighbour in arctan and tan."""
    lam = sampling.lambda_grid(7, 'paper', *ends)
    assert (lam[0], lam[-1]) == tuple(map(np.float32, ends))

  def test_one_step_has_no_two_ends(self):
    with pytest.raises(ValueError, match='num_steps=1 must be at least 2'):
      sampling.lambda_grid(1)


class TestCalls:
  @pytest.mark.parametrize('num_steps', [2, 16])
  def test_T_evaluations_and_one_noisy_step_less(self, monkeypatch, num_steps):
    """λ of every evaluation of ε̃, and (λ, λ') of every noisy step, in the order of the run."""
    evaluated, stepped, reverse = [], [], diffusion.reverse

    def eps_fn(z, lam):
      jax.debug.callback(lambda lam: evaluated.append(np.asarray(lam)), lam, ordered=True)
      return jnp.zeros_like(z)

    def counted_reverse(z, x, lam, lam_next, v):
      jax.debug.callback(lambda *ends: stepped.append(ends), lam, lam_next, ordered=True)
      return reverse(z, x, lam, lam_next, v)

    monkeypatch.setattr(diffusion, 'reverse', counted_reverse)
    sampling.sample(eps_fn, keys_of(np.arange(3)), (2,), **DEFAULTS | {'num_steps': num_steps})
    jax.effects_barrier()
    lam = np.asarray(sampling.lambda_grid(num_steps))
    np.testing.assert_array_equal(evaluated, np.tile(lam[:, None], 3))
    np.testing.assert_array_equal(stepped, np.stack([lam[:-1], lam[1:]], axis=1))

  @pytest.mark.parametrize('clip_x', [False, True])
  def test_no_noise_after_the_last_evaluation(self, clip_x):
    """A model that always sees the image x₀ gives it, whatever the noise, and x̃ is clipped."""
    x0 = 1.5

    def eps_fn(z, lam):
      return diffusion.predict_eps(z, jnp.full_like(z, x0), lam)

    settings = DEFAULTS | {'clip_x': clip_x}
    x = jax.jit(lambda keys: sampling.sample(eps_fn, keys, (8,), **settings))(keys_of(np.arange(8)))
    np.testing.assert_allclose(x, 1.0 if clip_x else x0, atol=1e-6)


class TestGaussian:
  """x ~ N(0, τ²): E[x|z_λ] = α τ² z/(α²τ² + σ²) is linear in z, and so is the whole sampler."""

  TAU = 0.5

  def eps_fn(self, z, lam):
    alpha, sigma = (a[:, None] for a in diffusion.alpha_sigma(lam))
    return sigma * z / ((alpha * self.TAU) ** 2 + sigma**2)

  def recursion(self, num_steps, v):
    """Variance of x̃, float64: V ← (of_z + of_x k)² V + σ̃², with x̃ = k z at each λ."""
    lam = exact_grid(num_steps)
    k = np.sqrt(sigmoid(lam)) * self.TAU**2 / (sigmoid(lam) * self.TAU**2 + sigmoid(-lam))
    variance = 1.0
    for t in range(num_steps - 1):
      of_z, of_x, added = transition(lam[t], lam[t + 1], v)
      variance = (of_z + of_x * k[t]) ** 2 * variance + added
    return k[-1] ** 2 * variance

  def sampler(self, shape, num_steps):
    settings = dict(num_steps=num_steps, clip_x=False, **ENDS)
    return jax.jit(lambda keys, v: sampling.sample(self.eps_fn, keys, shape, v=v, **settings))

  def test_variance_by_impulse_response(self, monkeypatch):
    """Sample j gets noise 1 at step j and 0 otherwise, so its output is its noise's coefficient:
    their squares add up to the variance, with no statistics in between. It nears τ² as T grows.
    """
    monkeypatch.setattr(jax.random, 'fold_in', lambda j, t: (j == t).astype(jnp.float32))
    monkeypatch.setattr(jax.random, 'normal', lambda impulse, shape: jnp.full(shape, impulse))
    v_list, errors = (0.0, 0.3, 1.0), []
    for num_steps in (4, 16, 64, 256):
      sample, keys = self.sampler((1,), num_steps), jnp.arange(num_steps + 1)
      responses = np.float64([sample(keys, v)[:, 0] for v in v_list])
      assert np.all(responses[:, -1] == 0)  # noises 0 … T−1 are all there are
      assert np.all(responses[:, :-1] != 0)
      variances = np.sum(responses**2, axis=1)
      np.testing.assert_allclose(variances, [self.recursion(num_steps, v) for v in v_list], 1e-5)
      errors.append(np.abs(variances - self.TAU**2))
    assert np.all(2 * np.array(errors[1:]) < errors[:-1])

  def test_variance_of_samples(self):
    num_steps, n = 16, 256 * 256
    x = np.float64(self.sampler((256,), num_steps)(keys_of(np.arange(256)), 0.3))
    assert abs(x.mean()) < 5 * self.TAU / np.sqrt(n)
    assert x.var() == pytest.approx(self.recursion(num_steps, 0.3), rel=5 * np.sqrt(2 / n))
    assert abs(np.corrcoef(x.ravel()[:-1], x.ravel()[1:])[0, 1]) < 5 / np.sqrt(n)


def exact_eps(z, lam, c):
  """ε(z, λ, c) of the mixture, and ε(z, λ) where c is None, in float64 from the densities."""
  alpha, sigma = np.sqrt(sigmoid(lam)), np.sqrt(sigmoid(-lam))
  variance = alpha**2 * mixture.STD**2 + sigma**2
  delta = z[:, None] - alpha * mixture.MEANS
  if c is not None:
    return sigma * delta[np.arange(len(z)), c] / variance
  joint = np.exp(-np.sum(delta**2, axis=-1) / (2 * variance))
  posterior = joint / joint.sum(axis=1, keepdims=True)
  return sigma * np.sum(posterior[..., None] * delta, axis=1) / variance


def algorithm_2(noise, c, w, num_steps, v, clip_x):
  """The paper's Algorithm 2, line by line, in float64. noise: (T, B, 2); c, w: (B,)."""
  lam, w = exact_grid(num_steps), np.float64(w)[:, None]
  z = noise[0]
  for t in range(num_steps):
    eps = (1 + w) * exact_eps(z, lam[t], c) - w * exact_eps(z, lam[t], None)
    x = (z - np.sqrt(sigmoid(-lam[t])) * eps) / np.sqrt(sigmoid(lam[t]))
    if clip_x:
      x = np.clip(x, -1, 1)
    if t < num_steps - 1:
      of_z, of_x, variance = transition(lam[t], lam[t + 1], v)
      z = of_z * z + of_x * x + np.sqrt(variance) * noise[t + 1]
  return x


@functools.partial(jax.jit, static_argnames=('num_steps', 'clip_x'))
def draw(keys, c, w, v=0.3, num_steps=64, clip_x=False):
  cond = Cond(c, c < NULL)
  model = guidance.guide(pairs.null(mixture.exact_eps, cond), rules.classifier_free, w=w)
  lam = sampling.lambda_grid(num_steps)
  return sampling.sample_model(model, keys, (2,), lam, sampler='ddpm', clip_x=clip_x, v=v)


class TestMixture:
  """Three 2-D Gaussians, guided with exact ε(z, λ, c) and ε(z, λ)."""

  @pytest.mark.parametrize('v', [0.0, 0.3, 1.0])
  @pytest.mark.parametrize('clip_x', [False, True])
  def test_equals_algorithm_2_in_float64_on_the_same_noise(self, v, clip_x):
    """w = −1, 0, …, 4 side by side in one batch, one for each sample."""
    num_steps, n = 64, 210
    keys, c = keys_of(np.arange(n)), np.arange(n) % 3
    w = np.repeat(np.float32([-1, 0, 0.1, 0.5, 1, 2, 4]), n // 7)
    noise_of_step = jax.jit(
      jax.vmap(
        lambda t: jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, t), (2,)))(keys)
      )
    )
    noise = np.float64(noise_of_step(jnp.arange(num_steps)))
    expected = algorithm_2(noise, c, w, num_steps, v, clip_x)
    x = np.asarray(draw(keys, c, w, v, num_steps, clip_x))
    np.testing.assert_allclose(x, expected, rtol=0, atol=5e-5)
    if clip_x:
      assert np.max(np.abs(x)) == 1 and np.mean(np.abs(x) < 1) > 0.1

  def test_moments(self):
    """w = 0 draws each class, w = −1 the mixture, to what T = 256 leaves and 5 standard errors."""
    n = 3000
    keys, c = keys_of(np.arange(n), seed=1), np.arange(n) % 3
    x = np.asarray(draw(keys, c, np.zeros(n, np.float32), num_steps=256))
    for k in range(3):
      error = 5 * mixture.STD / np.sqrt(n / 3)
      np.testing.assert_allclose(x[c == k].mean(axis=0), mixture.MEANS[k], atol=error)
      np.testing.assert_allclose(
        np.cov(x[c == k].T), mixture.STD**2 * np.eye(2), atol=0.01 + 5 * np.sqrt(2 / (n / 3))
      )
    x = np.asarray(draw(keys, c, np.full(n, -1, np.float32), num_steps=256))
    variance = mixture.STD**2 + mixture.RADIUS**2 / 2  # of each coordinate: a class's, and theirs
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=5 * np.sqrt(variance / n))
    np.testing.assert_allclose(
      np.cov(x.T), variance * np.eye(2), atol=0.01 + 5 * variance * np.sqrt(2 / n)
    )

  def test_w_minus_1_is_the_unconditional_model_exactly(self):
    n = 210
    keys, c = keys_of(np.arange(n)), np.arange(n) % 3
    null = np.full(n, NULL)
    w = np.full(n, -1, np.float32)
    np.testing.assert_array_equal(draw(keys, c, w), draw(keys, null, w))
    np.testing.assert_allclose(draw(keys, c, w), draw(keys, null, 0 * w), atol=1e-4)

  def test_w_one_a_sample_equals_w_of_all(self):
    n = 210
    keys, c = keys_of(np.arange(n)), np.arange(n) % 3
    w = np.resize(np.float32([0, 0.3, 1, 4]), n)
    together = draw(keys, c, w)
    for value in (0, 0.3, 1, 4):
      alone = draw(keys, c, np.float32(value))
      np.testing.assert_allclose(together[w == value], alone[w == value], atol=1e-4)


class TestNoiseOfASample:
  def test_is_its_own_in_any_batch(self):
    """Batches of 1, 7 and 64 give sample i the same image."""
    n, shape = 64, (8, 8, 1)

    @jax.jit
    def run(keys):
      def eps_fn(z, lam):  # of each sample by itself, and not linear
        return jnp.tanh(z - jnp.roll(z, 1, axis=1)) + 0.1 * jnp.sin(4 * z)

      return sampling.sample(eps_fn, keys, shape, **DEFAULTS)

    together = np.asarray(run(keys_of(np.arange(n))))
    assert together.shape == (n, *shape) and together.dtype == np.float32
    assert len(np.unique(together.reshape(n, -1), axis=0)) == n
    for batch_size in (1, 7):
      for start in (0, 21, n - batch_size):
        part = run(keys_of(np.arange(start, start + batch_size)))
        np.testing.assert_allclose(part, together[start : start + batch_size], rtol=0, atol=1e-6)
