"""VDM's bound: values that are known exactly, of data whose ε̂ is exact."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from cfg_jax.equations import bound, conditioning, diffusion, mixture, objectives

ENDS = -13.3, 5.0
# E[x] = E[ε] = E[xε] = 0 and E[x²] = E[ε²] = 1 hold exactly over these four dimensions: what is
# quadratic in x and ε, as all of N(0, 1) is, has its expectation without a draw.
X, EPS = np.float32([1, 1, -1, -1]), np.float32([1, -1, 1, -1])


def linear(t, ends=ENDS):
  return ends[0] + (ends[1] - ends[0]) * t


def of_normal(z, lam, cond):
  """E[ε|z] of x ~ N(0, 1)."""
  return diffusion.alpha_sigma(lam)[1][:, None] * z


def no_class(n):
  return conditioning.null(conditioning.given(jnp.zeros(n, jnp.int32)))


def normal_at(t, gamma_fn, num_steps=None, weight=None, levels=256):
  """The bound's parts at times t, for N(0, 1), nats a dimension, as expectations: (n,) each."""
  n = len(t)
  x, eps = (jnp.broadcast_to(a, (n, 4)) for a in (X, EPS))
  t = jnp.asarray(t, jnp.float32)
  levels = bound.level_values(levels)

  @jax.jit
  def at(x, eps, t):
    return bound.at(of_normal, x, no_class(n), gamma_fn, t, eps, eps, num_steps, levels, weight)

  parts = at(x, eps, t)
  return bound.Bound(*(np.float64(part) / 4 for part in parts))


def middles(n):
  return (np.arange(n) + 0.5) / n


class TestStandardNormal:
  @pytest.mark.parametrize(
    ('num_steps', 'nats'), [(10, 17.70785), (100, 7.24379), (1000, 6.70325), (10_000, 6.65227)]
  )
  def test_of_t_steps(self, num_steps, nats):
    found = normal_at(middles(num_steps), linear, num_steps)
    assert found.diffusion.mean() == pytest.approx(nats, abs=1e-4)

  def test_in_continuous_time(self):
    assert normal_at(middles(4096), linear).diffusion.mean() == pytest.approx(6.646643, abs=1e-5)

  @pytest.mark.parametrize('gamma_1', [2.0, 5.0, 9.0, 15.0, 20.0])
  def test_with_the_prior_for_every_end(self, gamma_1):
    """½ log(1 + SNR_max), what z_0 tells of x."""
    found = normal_at(middles(4096), lambda t: linear(t, (-13.3, gamma_1)))
    assert (found.prior + found.diffusion).mean() == pytest.approx(6.650001, abs=1e-5)

  @pytest.mark.parametrize('ends', [ENDS, (-20.0, 20.0), (-4.0, 1.0)])
  def test_does_not_move_with_the_interior_of_gamma(self, ends):
    nodes, weights = np.polynomial.legendre.leggauss(200)
    found = [
      normal_at((nodes + 1) / 2, lambda t, f=f: linear(f(t), ends)).diffusion @ weights / 2
      for f in (lambda t: t, lambda t: t**3, lambda t: jnp.sin(jnp.pi / 2 * t) ** 2)
    ]
    exact = 0.5 * (np.logaddexp(0, -ends[0]) - np.logaddexp(0, -ends[1]))
    np.testing.assert_allclose(found, exact, atol=1e-6)

  def test_another_gamma_is_another_loss_of_t_steps(self):
    found = normal_at(middles(100), lambda t: linear(t**2), 100)
    assert abs(found.diffusion.mean() - 7.24379) > 0.05

  def test_prior_to_float64_on_all_ends(self):
    gamma_1 = np.linspace(-5, 20, 26)
    found = bound.prior(jnp.full((26, 1), 0.5), jnp.asarray(gamma_1, jnp.float32))
    with mp.workdps(30):
      sigma2 = [1 / (1 + mp.exp(-g)) for g in gamma_1]
      exact = [float(((1 - s) * mp.mpf('0.25') + s - mp.log(s) - 1) / 2) for s in sigma2]
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-10)


class TestDecoder:
  @pytest.mark.parametrize('k', [100, 3, 252])
  def test_at_vdms_gamma_0(self, k):
    """E[−log p(x|z_0)] of a level with neighbours on both sides, at γ_0 = −13.3."""
    levels = bound.level_values(256) * bound.shrink(256)
    eps, weights = np.polynomial.hermite_e.hermegauss(300)
    x = jnp.full((300, 1), levels[k])
    nats = bound.reconstruction(
      x, jnp.asarray(eps, jnp.float32)[:, None], jnp.full(300, -13.3), levels
    )
    mean = np.float64(nats) @ weights / weights.sum()
    assert mean == pytest.approx(0.0072456, abs=2e-6)

  def test_the_levels_of_vdm(self):
    levels = bound.level_values(256) * bound.shrink(256)
    np.testing.assert_allclose(levels, 2 * (np.arange(256) + 0.5) / 256 - 1, atol=1e-7)

  def test_is_a_distribution_over_the_levels(self):
    """Of one z_0: each level as x, with the ε that leaves that z_0."""
    levels, gamma_0, z_0 = bound.level_values(17), -4.0, 0.3
    alpha, sigma = diffusion.alpha_sigma(jnp.float32(-gamma_0))
    eps_0 = (z_0 - alpha * levels) / sigma
    nats = bound.reconstruction(levels[:, None], eps_0[:, None], jnp.full(17, gamma_0), levels)
    assert float(jnp.exp(-nats).sum()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(nats - nats.min(), (eps_0**2 - (eps_0**2).min()) / 2, atol=1e-4)

  def test_no_noise_no_doubt_and_all_noise_all_doubt(self):
    x, eps = bound.level_values(17)[:, None], jnp.ones((17, 1))
    nats = bound.reconstruction(x, eps, jnp.full(17, -20.0), bound.level_values(17))
    np.testing.assert_array_equal(nats, 0)
    nats = bound.reconstruction(x, eps, jnp.full(17, 20.0), bound.level_values(17))
    np.testing.assert_allclose(nats, np.log(17), rtol=1e-3)


class TestDataThatCanBeEnumerated:
  LEVELS, P = np.float64([-1, -1 / 3, 1 / 3, 1]), np.float64([0.4, 0.1, 0.3, 0.2])

  def eps_fn(self, z, lam, cond):
    alpha, sigma = (a[:, None] for a in diffusion.alpha_sigma(lam))
    log_p = jnp.log(self.P) - jnp.square((z - alpha * self.LEVELS) / sigma) / 2
    return (z - alpha * (jax.nn.softmax(log_p) @ self.LEVELS)[:, None]) / sigma

  def nats(self, x, num_steps, n, ends=(-10.0, 7.0)):
    """The bound at x, as an expectation over ε by quadrature and over n times."""
    eps, weights = np.polynomial.hermite_e.hermegauss(40)
    t, eps = (jnp.asarray(a.ravel(), jnp.float32) for a in np.meshgrid(middles(n), eps))
    eps = eps[:, None]
    x, levels = jnp.full_like(eps, x), jnp.asarray(self.LEVELS, jnp.float32)
    gamma_fn = lambda t: linear(t, ends)  # noqa: E731
    cond = no_class(len(t))

    @jax.jit
    def total(x, eps, t):
      return bound.at(self.eps_fn, x, cond, gamma_fn, t, eps, eps, num_steps, levels).total

    return np.float64(total(x, eps, t)).reshape(-1, n).mean(1) @ weights / weights.sum()

  @pytest.mark.parametrize('num_steps', [None, 8000])
  def test_is_minus_log_p_of_each(self, num_steps):
    found = [self.nats(x, num_steps, num_steps or 3000) for x in self.LEVELS]
    np.testing.assert_allclose(found, -np.log(self.P), atol=3e-3)

  def test_lies_above_and_comes_down_with_t(self):
    found = [self.P @ [self.nats(x, n, n) for x in self.LEVELS] for n in (10, 40, 160, 640)]
    entropy = -self.P @ np.log(self.P)
    assert np.all(np.diff(found) < 0) and found[-1] > entropy


def test_of_a_mixture_is_its_entropy():
  """Without a decoder it is what z_0 tells of x: h(z_0) − h(z_0|x), on average over x."""
  means, std, ends = np.float32([[-1.0], [2.0]]), 0.5, (-6.0, 6.0)
  nodes, weights = np.polynomial.hermite_e.hermegauss(24)
  ts, t_weights = np.polynomial.legendre.leggauss(200)
  weights = weights / weights.sum()
  c, i, j, k = (a.ravel() for a in np.meshgrid(*map(np.arange, (2, 24, 24, 200)), indexing='ij'))
  x, eps = means[c] + std * np.float32(nodes[i])[:, None], np.float32(nodes[j])[:, None]
  t = jnp.asarray((ts[k] + 1) / 2, jnp.float32)

  def eps_fn(z, lam, cond):
    return mixture.exact_eps(z, lam, cond, means=means, std=std)

  gamma, rate = bound.rates(lambda t: linear(t, ends), t, None)
  nats = bound.diffusion_loss(eps_fn, x, no_class(len(x)), eps, gamma, rate)
  nats += bound.prior(x, jnp.full(len(x), ends[1]))
  found = np.float64(nats) @ (weights[i] * weights[j] * t_weights[k] / 2) / 2

  alpha2 = 1 / (1 + np.exp(ends[0]))
  z = np.linspace(-8, 10, 20_001)
  variance = alpha2 * std**2 + 1 - alpha2
  density = np.mean(np.exp(-((z - np.sqrt(alpha2) * means) ** 2) / (2 * variance)), 0)
  density /= np.sqrt(2 * np.pi * variance)
  h = -np.trapezoid(density * np.log(density + 1e-300), z)
  assert found == pytest.approx(h - 0.5 * np.log(2 * np.pi * np.e * (1 - alpha2)), abs=3e-3)


def test_antithetic_times_have_the_mean_of_independent_ones_and_less_variance():
  def mean_loss(key, t):
    x, eps = (jax.random.normal(k, (64, 8)) for k in jax.random.split(key))
    gamma, rate = bound.rates(lambda t: linear(t**2), t, None)
    return bound.diffusion_loss(of_normal, x, no_class(64), eps, gamma, rate).mean() / 8

  keys = jax.random.split(jax.random.key(0), 2000)
  together = jax.vmap(lambda k: mean_loss(k, bound.times(jax.random.fold_in(k, 9), 64)))(keys)
  alone = jax.vmap(lambda k: mean_loss(k, jax.random.uniform(jax.random.fold_in(k, 9), (64,))))(
    keys
  )
  error = float(np.sqrt((np.var(together) + np.var(alone)) / 2000))
  assert abs(np.mean(together) - np.mean(alone)) < 4 * error
  assert np.mean(together) == pytest.approx(6.646643, abs=4 * error)
  assert np.var(together) < 0.6 * np.var(alone)


def test_times_are_uniform_and_evenly_spread():
  t = jax.vmap(lambda key: bound.times(key, 8))(jax.random.split(jax.random.key(1), 500))
  assert np.all((t >= 0) & (t < 1))
  np.testing.assert_allclose(np.diff(np.sort(t, axis=1), axis=1), 1 / 8, atol=1e-6)
  assert np.max(np.abs(np.sort(np.ravel(t[:, 3])) - middles(500))) < 2 / np.sqrt(500)


class TestWeighted:
  @pytest.mark.parametrize('ends', [(-20.0, 20.0), (-5.0, 3.0)])
  def test_algorithm_1_is_one_of_them(self, ends):
    """The loss of N(0, 1), E[α²] over its p(λ), and the weighted bound, by two integrals."""
    weight = lambda lam: bound.algorithm_1_weight(lam, *ends)  # noqa: E731
    found = normal_at(middles(4096), lambda t: linear(t, (-ends[1], -ends[0])), weight=weight)
    lam = diffusion.log_snr(jnp.asarray(middles(4096), jnp.float32), *ends)
    x, eps = (jnp.broadcast_to(a, (4096, 4)) for a in (X, EPS))
    noisy = objectives.Noisy(diffusion.diffuse(x, eps, lam), lam, no_class(4096), eps)
    loss = np.float64(objectives.losses(of_normal, noisy)).mean()
    assert found.diffusion.mean() == pytest.approx(loss, abs=1e-5)
    assert 0.1 < loss < 0.9

  def test_weight_one_is_the_bound(self):
    t = middles(50)
    for num_steps in (None, 50):
      with_one = normal_at(t, linear, num_steps, weight=jnp.ones_like)
      np.testing.assert_array_equal(with_one.diffusion, normal_at(t, linear, num_steps).diffusion)


@pytest.mark.parametrize('num_steps', [None, 7])
def test_is_its_float64_twin(num_steps):
  """Written from the paper's equations in SNR and x̂, where the package has γ and ε̂."""
  random, ends, shape = np.random.default_rng(0), (-8.0, 4.0), (5, 3, 2)
  levels = np.linspace(-1, 1, 17)
  x = levels[random.integers(0, 17, shape)]
  eps_0, eps, t = random.normal(size=shape), random.normal(size=shape), random.uniform(size=5)
  weights = random.normal(size=(3, 2))

  def alpha_sigma(gamma):
    snr = np.exp(-gamma)
    return np.sqrt(snr / (1 + snr)), np.sqrt(1 / (1 + snr))

  gamma_of = lambda t: ends[0] + (ends[1] - ends[0]) * t**2  # noqa: E731
  snr_of = lambda t: np.exp(-gamma_of(t))  # noqa: E731
  expected = np.zeros((3, 5))
  for n in range(5):
    alpha, sigma = alpha_sigma(ends[1])
    expected[0, n] = np.sum((alpha * x[n]) ** 2 + sigma**2 - np.log(sigma**2) - 1) / 2
    alpha, sigma = alpha_sigma(ends[0])
    z = alpha * x[n] + sigma * eps_0[n]
    log_q = -0.5 * ((z[..., None] - alpha * levels) / sigma) ** 2
    own = -0.5 * ((z - alpha * x[n]) / sigma) ** 2
    expected[1, n] = np.sum(np.log(np.exp(log_q).sum(-1)) - own)
    if num_steps is None:
      time = t[n]
      difference = -(snr_of(time + 1e-6) - snr_of(time - 1e-6)) / 2e-6
    else:
      time = np.ceil(t[n] * num_steps) / num_steps
      difference = num_steps * (snr_of(time - 1 / num_steps) - snr_of(time))
    alpha, sigma = alpha_sigma(gamma_of(time))
    z = alpha * x[n] + sigma * eps[n]
    x_hat = (z - sigma * np.sin(z * weights) * gamma_of(time)) / alpha
    expected[2, n] = difference * np.sum((x[n] - x_hat) ** 2) / 2

  found = bound.at(
    lambda z, lam, cond: -jnp.sin(z * weights) * lam[:, None, None],
    jnp.asarray(x, jnp.float32),
    no_class(5),
    gamma_of,
    *(jnp.asarray(a, jnp.float32) for a in (t, eps_0, eps)),
    num_steps,
    bound.level_values(17),
  )
  np.testing.assert_allclose(np.stack(found), expected, rtol=2e-5, atol=1e-6)


def test_vlb_draws_each_part_from_a_key_of_its_own_and_sums_over_dimensions():
  x = jnp.zeros((512, 4, 4, 1))
  seen = []

  def zero(z, lam, cond):
    seen.append((z, lam))
    return jnp.zeros_like(z)

  parts = bound.vlb(zero, jax.random.key(0), x, no_class(512), linear, levels=17)
  assert [part.shape for part in parts] == 3 * [(512,)]
  z, lam = seen[0]
  eps = z / diffusion.alpha_sigma(lam)[1][:, None, None, None]
  expected = 0.5 * 18.3 * np.square(eps).sum((1, 2, 3))
  np.testing.assert_allclose(parts.diffusion, expected, rtol=1e-4)
  np.testing.assert_allclose(
    np.sort(lam),
    np.sort(-linear(bound.times(jax.random.split(jax.random.key(0), 3)[0], 512))),
    atol=1e-5,
  )
  assert float(bound.bits_per_dim(jnp.log(2.0) * 16, (4, 4, 1))) == pytest.approx(1)
