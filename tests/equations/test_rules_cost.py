"""What a rule costs: where no sample is guided, no second prediction is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.equations import conditioning, guidance, mixture, samplers
from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance import pairs, rules
from cfg_jax.plan import cost
from tests.equations.solver_twins import FORMS
from tests.equations.test_samplers import keys_of

MEANS = np.float32([[0.0, 1.2], [1.0, -0.6], [-1.0, -0.6]])
N = 12
LAM = samplers.lambda_grid(16)


def drawer(rule, make_pair=pairs.null, seen=None, form='ddpm v=0', lam=LAM, traces=None):
  """A compiled sampler of knobs (N,) each, as `methods.drawing` has it; seen: rows of each call."""
  sampler, own = FORMS[form]

  def eps_fn(z, lam, cond):
    if seen is not None:
      jax.debug.callback(lambda lam: seen.append((len(lam), float(lam[0]))), lam, ordered=True)
    return mixture.exact_eps(z, lam, cond, means=jnp.asarray(MEANS), std=0.5)

  @jax.jit
  def draw(knobs):
    if traces is not None:
      traces.append(knobs)
    cond = conditioning.given(jnp.arange(N) % 3)
    model = guidance.guide(make_pair(eps_fn, cond), rules.RULES[rule], **knobs)
    settings = dict(sampler=sampler, clip_x=True, **own)
    return samplers.sample_model(model, keys_of(np.arange(N)), (2,), lam, **settings)

  def run(**knobs):
    x = np.asarray(draw({k: np.broadcast_to(np.float32(v), N) for k, v in knobs.items()}))
    jax.effects_barrier()
    return x

  return run


FORMS_OF_EACH = ['ddpm v=0', 'heun, churn', '++2M', '++2S']


@pytest.mark.parametrize('form', FORMS_OF_EACH)
def test_all_and_none_are_guided_and_unguided_to_the_bit(form):
  plain, of_interval = drawer('classifier_free', form=form), drawer('interval', form=form)
  guided, unguided = plain(w=2.0), plain(w=0.0)
  assert np.abs(guided - unguided).max() > 0.1
  np.testing.assert_array_equal(of_interval(w=2.0, lo=-21.0, hi=21.0), guided)
  np.testing.assert_array_equal(of_interval(w=2.0, lo=30.0, hi=31.0), unguided)
  np.testing.assert_array_equal(of_interval(w=0.0, lo=-2.0, hi=2.0), unguided)
  if 'heun' not in form:  # which is of order 1 at an interval's ends
    np.testing.assert_allclose(of_interval(w=1e-4, lo=-2.0, hi=2.0), unguided, atol=2e-3)
  some = of_interval(w=2.0, lo=-2.0, hi=2.0)
  assert min(np.abs(some - guided).max(), np.abs(some - unguided).max()) > 0.01


@pytest.mark.parametrize('form', FORMS_OF_EACH)
def test_outside_the_interval_the_null_half_is_not_computed(form):
  """One compiled program for every w and interval; and as many calls as are counted."""
  seen, traces = [], []
  run = drawer('interval', seen=seen, traces=traces, form=form)
  name, own = FORMS[form]
  section = {'name': name, 'grid': 'paper', 'num_steps': 16, 'clip_x': True, **own}
  lams = samplers.visited(section, -20.0, 20.0)
  for w, lo, hi in ((1.0, -2.0, 3.0), (1.0, 0.0, 1.0), (0.0, -9.0, 9.0), (4.0, -21.0, 21.0)):
    seen.clear()
    run(w=w, lo=lo, hi=hi)
    np.testing.assert_allclose([lam for _, lam in seen], lams, rtol=1e-5, atol=1e-5)
    for rows, lam in seen:
      assert rows == (2 * N if w and lo <= lam < hi else N), (lam, w, lo, hi)
    knobs = {'w': w, 'lo': lo, 'hi': hi}
    assert (
      sum(rows for rows, _ in seen) == N * pairs.calls_along('null', 'interval', knobs, lams)[0]
    )
  assert len(traces) == 1


def test_in_a_batch_each_sample_has_its_own_interval():
  """So that what a sample is does not depend on those beside it."""
  run = drawer('interval')
  lo, hi = np.linspace(-6, 3, N), np.linspace(0, 9, N)
  w = np.arange(N) % 4.0
  together = run(w=w, lo=lo, hi=hi)
  for i in (1, 5, 8):
    alone = run(w=w[i], lo=lo[i], hi=hi[i])
    np.testing.assert_allclose(together[i], alone[i], rtol=0, atol=1e-6)


class TestAdaptive:
  def test_it_drops_the_null_half_once_both_agree(self):
    seen = []
    run = drawer('adaptive', seen=seen)
    run(w=2.0, theta=0.9)
    rows = [r for r, _ in seen]
    both = rows.count(2 * N)
    assert 1 < both < len(rows) - 2 and rows == [2 * N] * both + [N] * (len(rows) - both)
    seen.clear()
    np.testing.assert_array_equal(run(w=2.0, theta=1.0), drawer('classifier_free')(w=2.0))
    assert {r for r, _ in seen} == {2 * N}

  def test_what_has_agreed_stays_unguided(self):
    """At the first agreement both are all noise, which counts for nothing."""
    c, z, lam = np.float32([[1, 0]]), np.zeros((1, 2), np.float32), np.zeros(1, np.float32)
    memory, guided = z, []
    for u in ([1, 0.1], [0, 1], [1, 0.1], [0, 1], [0, 1]):
      sides = (Prediction(z, eps) for eps in (c, np.float32([u])))
      prediction, memory = rules.adaptive(*sides, z, lam, memory, w=1.0, theta=0.9)
      guided.append(bool(np.any(np.asarray(prediction.eps) != c)))
    assert guided == [True, True, True, False, False]

  def test_a_sample_goes_its_own_way(self):
    """θ = 1 in some samples keeps the ∅ half for all; the others are as they were without."""
    run = drawer('adaptive')
    alone, mixed = run(w=2.0, theta=0.9), run(w=2.0, theta=np.where(np.arange(N) % 2, 0.9, 1.0))
    np.testing.assert_allclose(mixed[1::2], alone[1::2], rtol=0, atol=1e-6)
    assert np.abs(mixed[::2] - alone[::2]).max() > 1e-3


@pytest.mark.parametrize('rule', ['cfg_pp', 'apg_comfyui', 'apg_diffusers'])
def test_rules_that_need_both_at_w_0_have_both(rule):
  """Alone in a batch or not: at w = 0 these are no conditional model."""
  run, seen = drawer(rule), []
  more = {} if rule == 'cfg_pp' else {'eta': 0.0, 'radius': 0.0, 'momentum': 0.0}
  mixed, zero = run(w=np.arange(N) % 2, **more), run(w=0.0, **more)
  np.testing.assert_allclose(mixed[::2], zero[::2], rtol=0, atol=1e-6)
  drawer(rule, seen=seen)(w=0.0, **more)
  assert {rows for rows, _ in seen} == {2 * N}
  lam = np.asarray(LAM)
  assert pairs.calls_along('null', rule, {'w': 0.0, **more}, lam) == (2 * len(lam), 0)


def test_contrast_moves_away_from_another_class():
  """w → the class's samples go away from the other's mean; a class against itself is unguided."""
  of = lambda eps_fn, cond: pairs.contrast(  # noqa: E731
    eps_fn, cond, conditioning.given(jnp.zeros(N, int))
  )
  run = drawer('classifier_free', of)
  unguided, guided = run(w=0.0), run(w=2.0)
  np.testing.assert_allclose(guided[::3], unguided[::3], atol=1e-5)
  away = guided - unguided
  for c in (1, 2):
    along = away[c::3] @ (MEANS[c] - MEANS[0])
    assert along.min() >= 0 and along.mean() > 0.1


def test_a_weaker_network_is_asked_where_it_counts():
  """Karras et al.'s guidance, in an interval: the weaker network's calls have rows of their own."""
  seen = []

  def of(eps_fn, cond):
    def weak_fn(z, lam, cond):
      jax.debug.callback(lambda lam: seen.append(float(lam[0])), lam, ordered=True)
      return mixture.exact_eps(z, lam, cond, means=jnp.asarray(MEANS), std=0.9)

    return pairs.autoguidance(eps_fn, cond, weak_fn)

  x = drawer('interval', of)(w=2.0, lo=-2.0, hi=3.0)
  lam = np.asarray(LAM)
  np.testing.assert_allclose(seen, lam[(-2 <= lam) & (lam < 3)])
  spread = [
    np.linalg.norm(a - MEANS[np.arange(N) % 3], axis=1).mean()
    for a in (x, drawer('classifier_free')(w=0.0))
  ]
  assert spread[0] < 0.9 * spread[1]  # guided away from what is too wide


def test_a_plan_counts_an_interval(tiny):
  texts = ['sample.guidance.rule=interval', 'sample.guidance.lo=-2', 'sample.guidance.hi=1.5']
  config = config_lib.change(tiny, texts)
  lam = np.asarray(samplers.grid_of(config.sample.sampler, -20.0, 20.0))
  inside = np.sum((-2 <= lam) & (lam < 1.5))
  assert 0 < inside < len(lam)
  assert cost.image_calls(config, 1.0) == len(lam) + inside
  assert cost.image_calls(config, 0.0) == len(lam)
