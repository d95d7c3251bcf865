"""Learned schedules: their ends, and that the interior descends the variance."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfg_jax.equations import bound, conditioning, diffusion, gamma

ENDS = -13.3, 5.0


def bent(seed=0, ends=ENDS):
  """A network schedule that has learned something: large weights, some of them negative."""
  params, random = gamma.init(jax.random.key(seed), 'network', *ends), np.random.default_rng(seed)
  params['interior']['w_2'] = jnp.asarray(random.normal(size=gamma.UNITS), jnp.float32)
  params['interior']['b_2'] = jnp.asarray(5 * random.normal(size=gamma.UNITS), jnp.float32)
  params['interior']['w_3'] = jnp.asarray(random.normal(size=gamma.UNITS) / 10, jnp.float32)
  return params


class TestSchedules:
  @pytest.mark.parametrize('schedule', gamma.SCHEDULES)
  def test_begin_at_their_ends_and_nearly_linear(self, schedule):
    params = gamma.init(jax.random.key(0), schedule, *ENDS)
    t = jnp.linspace(0, 1, 101)
    found = gamma.gamma(params, t, ENDS)
    np.testing.assert_allclose(found[np.array([0, -1])], ENDS, atol=1e-5)
    line = ENDS[0] + (ENDS[1] - ENDS[0]) * t
    np.testing.assert_allclose(found, line, atol=0.05)
    assert ('ends' in params, 'interior' in params) == (
      schedule != 'fixed',
      schedule == 'network',
    )

  def test_network_rises_between_its_ends_whatever_its_weights(self):
    params = bent()
    found = np.float64(gamma.gamma(params, jnp.linspace(0, 1, 301), ENDS))
    np.testing.assert_allclose(found[[0, -1]], ENDS, atol=1e-5)
    assert np.all(np.diff(found) > 0)
    assert np.max(np.abs(found - np.linspace(*ENDS, 301))) > 1

  def test_learned_ends_hold_for_a_negative_span(self):
    params = {'ends': {'gamma_0': jnp.float32(-3), 'span': jnp.float32(-4)}}
    np.testing.assert_array_equal(gamma.gamma(params, jnp.float32([0, 1]), ENDS), [-3, 1])

  def test_grid_is_from_noise_to_data(self):
    lam = np.asarray(gamma.lambda_grid(bent(), 9, ENDS))
    np.testing.assert_allclose(lam[[0, -1]], [-5, 13.3], atol=1e-5)
    assert lam.shape == (9,) and np.all(np.diff(lam) > 0)
    np.testing.assert_allclose(gamma.lambda_grid({}, 3, ENDS), [-5, 4.15, 13.3], rtol=1e-6)

  def test_reversed_ends(self):
    with pytest.raises(ValueError, match='gamma_0=5 must be less than gamma_1=-13.3'):
      gamma.init(jax.random.key(0), 'linear', 5, -13.3)


def wrong_eps(params, z, lam):
  """A model that is no posterior mean, with a parameter: losses differ over t."""
  return jnp.tanh(params) * diffusion.alpha_sigma(lam)[1][:, None] * z + 0.1 * jnp.sin(lam)[:, None]


def samples(dtype):
  random = np.random.default_rng(1)
  arrays = random.normal(size=(200, 3)), random.normal(size=(200, 3)), (np.arange(200) + 0.5) / 200
  return tuple(jnp.asarray(a, dtype) for a in arrays)


def loss(model, gamma_rate, x, eps):
  cond = conditioning.null(conditioning.given(jnp.zeros(len(x), jnp.int32)))
  eps_fn = lambda z, lam, cond: wrong_eps(model, z, lam)  # noqa: E731
  return bound.diffusion_loss(eps_fn, x, cond, eps, *gamma_rate)


def each(params, num_steps, data):
  x, eps, t = data
  rates = bound.rates(lambda t: gamma.gamma(params['schedule'], t, ENDS), t, num_steps)
  return loss(params['model'], rates, x, eps)


def descended(params, num_steps, data):
  x, eps, t = data
  rates = gamma.rates(params['schedule'], t, ENDS, num_steps)
  values = gamma.variance_minimising(loss)(params['model'], *rates, x, eps)
  return jnp.mean(values), values


@pytest.mark.parametrize('num_steps', [None, 20])
def test_interior_descends_the_square_and_all_else_the_mean(num_steps):
  """Against finite differences of E[L²] and of E[L], in float64, along random directions."""
  with jax.enable_x64(True):
    schedule = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), bent(ends=(-4.0, 3.0)))
    params, data = {'model': jnp.float64(0.7), 'schedule': schedule}, samples(jnp.float64)
    grads, values = jax.jit(jax.grad(descended, has_aux=True), static_argnums=1)(
      params, num_steps, data
    )
    np.testing.assert_allclose(values, each(params, num_steps, data), rtol=1e-12)

    def slope(f, path, direction):
      def at(h):
        moved = jax.tree.map(jnp.array, params)
        inside = moved
        for name in path[:-1]:
          inside = inside[name]
        inside[path[-1]] = inside[path[-1]] + h * direction
        return float(f(each(moved, num_steps, data)))

      return (at(1e-6) - at(-1e-6)) / 2e-6

    random = np.random.default_rng(2)
    mean_square, mean = lambda v: jnp.mean(v**2), jnp.mean
    for path, f in (
      (('model',), mean),
      (('schedule', 'ends', 'gamma_0'), mean),
      (('schedule', 'ends', 'span'), mean),
      *((('schedule', 'interior', n), mean_square) for n in ('w_1', 'b_1', 'w_2', 'b_2', 'w_3')),
    ):
      found = grads
      for name in path:
        found = found[name]
      direction = random.normal(size=found.shape)
      assert np.sum(found * direction) == pytest.approx(slope(f, path, direction), rel=1e-5)


def test_descending_it_lowers_the_variance_and_moves_no_mean():
  """Descent of the interior alone, for x ~ N(0, 1) and its exact ε̂: L's share that t
  decides is gone where γ' = 1/α², so there the variance is least.
  """
  params, ends = gamma.init(jax.random.key(0), 'network', -6.0, 4.0), (-6.0, 4.0)
  t = (jnp.arange(128) + 0.5) / 128
  x, eps = (jnp.tile(jnp.float32(row), (128, 1)) for row in ([1, 1, -1, -1], [1, -1, 1, -1]))

  def exact(model, gamma_rate, x, eps):
    cond = conditioning.null(conditioning.given(jnp.zeros(len(x), jnp.int32)))
    eps_fn = lambda z, lam, cond: diffusion.alpha_sigma(lam)[1][:, None] * z  # noqa: E731
    return bound.diffusion_loss(eps_fn, x, cond, eps, *gamma_rate)

  def mean(interior):
    rates = gamma.rates(params | {'interior': interior}, t, ends, None)
    values = gamma.variance_minimising(exact)(None, *rates, x, eps)
    return jnp.mean(values), values

  @jax.jit
  def step(interior, opt_state):
    grads, values = jax.grad(mean, has_aux=True)(interior)
    updates, opt_state = adam.update(grads, opt_state)
    return optax.apply_updates(interior, updates), opt_state, values

  interior, adam, found = params['interior'], optax.adam(2e-2), []
  opt_state = adam.init(interior)
  for _ in range(200):
    interior, opt_state, values = step(interior, opt_state)
    found.append((float(values.mean()), float(values.var())))
  (mean_before, variance_before), (mean_after, variance_after) = found[0], found[-1]
  assert mean_after == pytest.approx(mean_before, rel=2e-3)
  assert variance_after < variance_before / 4


def test_the_bound_does_not_move_with_what_the_network_learned():
  nodes, weights = np.polynomial.legendre.leggauss(400)
  t = jnp.asarray((nodes + 1) / 2, jnp.float32)
  x, eps = (jnp.tile(jnp.float32(row), (400, 1)) for row in ([1, 1, -1, -1], [1, -1, 1, -1]))
  cond = conditioning.null(conditioning.given(jnp.zeros(400, jnp.int32)))

  def nats(params):
    rates = bound.rates(lambda t: gamma.gamma(params, t, ENDS), t, None)
    eps_fn = lambda z, lam, cond: diffusion.alpha_sigma(lam)[1][:, None] * z  # noqa: E731
    return np.float64(bound.diffusion_loss(eps_fn, x, cond, eps, *rates)) / 4 @ weights / 2

  bent_softly = bent()
  bent_softly['interior']['b_2'] /= 3
  assert nats(gamma.init(jax.random.key(0), 'network', *ENDS)) == pytest.approx(6.646643, abs=1e-6)
  assert nats(bent_softly) == pytest.approx(6.646643, abs=2e-6)
