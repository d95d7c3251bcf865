"""Section 3: the algebra of w, against an exact mixture, and what it asks of the network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import conditioning, diffusion, guidance, knobs
from cfg_jax.equations.guidance import pairs, rules
from cfg_jax.equations.samplers.loop import Memory
from experiments import figure2_gaussians as mixture

B, IMAGE, NULL = 5, (3, 2, 1), 10


def batch(seed=0):
  """eps_cond, eps_uncond or z, …: (2, B, *IMAGE), and one λ and one class for each sample."""
  rng = np.random.default_rng(seed)
  pair = rng.normal(size=(2, B, *IMAGE)).astype(np.float32)
  return pair, np.linspace(-20, 20, B, dtype=np.float32), np.arange(B)


def eps_fn(z, lam, cond, null=NULL):
  """A stand-in for the network: of each sample by itself, and not linear in anything."""
  c = jnp.where(cond.given, cond.value, null)
  lam, c = (a.reshape(-1, *(1,) * len(IMAGE)) for a in (lam, c))
  return jnp.sin(3 * z + 0.1 * lam) + jnp.cos(c + z)


def guided(eps_fn, c, w):
  """ε̃(z, λ) by the paper's pair and rule."""
  model = guidance.guide(
    pairs.null(eps_fn, conditioning.given(jnp.asarray(c))), rules.classifier_free, w=w
  )
  return lambda z, lam: model(z, lam, Memory(z, z))[0].eps


def passes(z, lam, c, null=NULL):
  """ε(z, c) and ε(z, ∅)."""
  cond = conditioning.given(jnp.asarray(c))
  return eps_fn(z, lam, cond), eps_fn(z, lam, conditioning.null(cond), null)


class TestGuidedEps:
  @pytest.mark.parametrize('w', [-1.0, 0.0, 0.1, 4.0, np.array([-1, 0, 0.3, 2, 4], np.float32)])
  def test_equation_6(self, w):
    (cond, uncond), _, _ = batch()
    per_sample = np.broadcast_to(np.float64(w), B).reshape(B, 1, 1, 1)
    exact = (1 + per_sample) * np.float64(cond) - per_sample * np.float64(uncond)
    for f in (guidance.guided_eps, jax.jit(guidance.guided_eps)):
      np.testing.assert_allclose(f(cond, uncond, w), exact, rtol=1e-5, atol=1e-6)

  def test_ends_are_exact(self):
    (cond, uncond), _, _ = batch()
    for f in (guidance.guided_eps, jax.jit(guidance.guided_eps)):
      np.testing.assert_array_equal(f(1e6 * cond, uncond, -1.0), uncond)
      np.testing.assert_array_equal(f(cond, 1e6 * uncond, 0.0), cond)

  @pytest.mark.parametrize('lam', [-20.0, -3.0, 0.0, 4.0])
  def test_is_guidance_by_the_implicit_classifier(self, lam):
    """ε̃ = ε(z, c) − w σ_λ ∇ log p(c|z), where p(c|z) and both ε of a mixture are exact."""
    z = np.random.default_rng(1).normal(size=(B, 2)).astype(np.float32) * 1.5
    c, w = np.arange(B) % 3, np.linspace(0, 4, B, dtype=np.float32)
    alpha, sigma = diffusion.alpha_sigma(lam)
    variance = (alpha * mixture.STD) ** 2 + sigma**2

    def log_posterior(z, c):
      log_joint = -jnp.sum((z - alpha * mixture.MEANS) ** 2, axis=-1) / (2 * variance)
      return jax.nn.log_softmax(log_joint)[c]

    lams = jnp.full(B, lam)
    exact_eps = jax.jit(mixture.exact_eps)
    cond = exact_eps(z, lams, conditioning.given(c))
    uncond = exact_eps(z, lams, conditioning.null(conditioning.given(c)))
    classifier = jax.jit(jax.vmap(jax.grad(log_posterior)))(z, c)
    expected = cond - w[:, None] * sigma * classifier
    np.testing.assert_allclose(guidance.guided_eps(cond, uncond, w), expected, atol=5e-6)

  def test_w_has_one_value_a_sample(self):
    (cond, uncond), _, _ = batch()
    with pytest.raises(AssertionError):
      guidance.guided_eps(cond, uncond, jnp.zeros(B + 1))

  def test_scale(self):
    """Of the other literature: ε̃ = ε(z) + s (ε(z, c) − ε(z))."""
    (cond, uncond), _, _ = batch()
    assert guidance.w_from_scale(1) == 0 and guidance.w_from_scale(0) == -1
    ours = guidance.guided_eps(cond, uncond, guidance.w_from_scale(7.5))
    np.testing.assert_allclose(ours, uncond + 7.5 * (cond - uncond), rtol=1e-5, atol=1e-5)


class TestGuide:
  def test_each_sample_with_its_class_and_with_null(self):
    """One call on both passes equals two calls, for w of one value or of one a sample."""
    (z, _), lam, c = batch()
    cond, uncond = passes(z, lam, c)
    for w in (2.0, np.array([-1, 0, 0.3, 2, 4], np.float32)):
      both = guided(eps_fn, c, w)(z, lam)
      np.testing.assert_allclose(both, guidance.guided_eps(cond, uncond, w), rtol=1e-5, atol=1e-6)

  @pytest.mark.parametrize('w', [-1.0, np.full(B, -1.0, np.float32)])
  def test_w_minus_1_is_the_unconditional_model_exactly(self, w):
    (z, _), lam, c = batch()
    for null in (NULL, 3):
      _, unconditional = passes(z, lam, c, null)
      of_null = functools.partial(eps_fn, null=null)
      np.testing.assert_array_equal(guided(of_null, c, w)(z, lam), unconditional)

  @pytest.mark.parametrize('jitted', [False, True])
  @pytest.mark.parametrize(
    'w, rows',
    [
      (0, B),
      (0.0, B),
      (np.zeros(B), B),
      (jnp.zeros(B), B),
      (0.1, 2 * B),
      (np.arange(B), 2 * B),
      (-1.0, 2 * B),
    ],
  )
  def test_known_w_of_0_has_no_null_half(self, jitted, w, rows):
    """Not in the program at all, though the sampler around it be compiled."""
    (z, _), lam, c = batch()
    seen = []

    def counted(z, lam, cond):
      seen.append((z.shape[0], lam.shape[0], cond.value.shape[0]))
      return eps_fn(z, lam, cond)

    def call(z, lam):
      return guided(counted, c, w)(z, lam)

    (jax.jit(call) if jitted else call)(z, lam)
    assert seen == [(rows,) * 3]

  def test_traced_w_of_0_computes_no_null_half(self):
    """One program for every w, which decides as it runs."""
    (z, _), lam, c = batch()
    seen, traces = [], []

    def counted(z, lam, cond):
      jax.debug.callback(functools.partial(seen.append, z.shape[0]))
      return eps_fn(z, lam, cond)

    @jax.jit
    def call(z, lam, w):
      traces.append(w)
      return guided(counted, c, w)(z, lam)

    one_guided = np.zeros(B, np.float32)
    one_guided[2] = 0.5
    for w, rows in ((np.zeros(B), B), (one_guided, 2 * B), (np.full(B, -1.0), 2 * B)):
      eps = call(z, lam, w.astype(np.float32))
      jax.effects_barrier()
      assert seen == [rows]
      seen.clear()
      exact = guidance.guided_eps(*passes(z, lam, c), w)
      np.testing.assert_allclose(eps, exact, rtol=1e-5, atol=1e-6)
    assert len(traces) == 1


def test_conditions_of_any_shape_go_through_the_pair():
  """Attributes (B, 8) and a tree of two arrays: once they were flattened in silence."""
  (z, _), lam, c = batch()
  value = {'attributes': jnp.ones((B, 8)) * jnp.arange(B)[:, None], 'class': jnp.asarray(c)}

  def of_attributes(z, lam, cond):
    assert cond.value['attributes'].shape == (len(z), 8)
    total = jnp.where(cond.given, cond.value['attributes'].sum(1) + cond.value['class'], -5.0)
    return z + total.reshape(-1, 1, 1, 1)

  pair = pairs.null(of_attributes, conditioning.given(value))
  towards, away = pair(z, lam)
  np.testing.assert_allclose(towards.eps, z + 9.0 * np.arange(B).reshape(B, 1, 1, 1), rtol=1e-6)
  np.testing.assert_allclose(away.eps, z - 5)


@pytest.mark.parametrize('wrong', ['class of another batch', 'attributes of another batch'])
def test_conditions_of_another_number_of_samples_are_refused(wrong):
  (z, _), lam, c = batch()
  value = {'attributes': jnp.ones((B, 8)), 'class': jnp.asarray(c)}
  value[wrong.split()[0]] = jnp.ones((8 * B,))  # as flattened attributes would be
  cond = conditioning.Cond(value, jnp.ones(B, bool))
  for alone in (False, True):
    with pytest.raises(AssertionError, match='shape'):
      pairs.null(lambda z, *_: z, cond)(z, lam, alone)


class TestProblems:
  """Of the config's section `sample.guidance`."""

  GOOD = {'pair': 'null', 'rule': 'classifier_free', 'w': (0.0, 1.0)}

  def test_the_papers_rule_is_right(self):
    assert not list(rules.problems(self.GOOD))

  @pytest.mark.parametrize(
    'change, field, says',
    [
      ({'rule': 'magic'}, 'rule', 'none of classifier_free'),
      ({'start': 1.0}, 'start', 'no knob of classifier_free, which has w'),
      ({'w': ()}, 'w', 'at least one'),
      ({'w': (1.0, 1.0)}, 'w', 'twice'),
      ({'w': (0.0, float('nan'))}, 'w', 'finite'),
      ({'w': (float('inf'),)}, 'w', 'finite'),
      ({'rule': 'interval', 'lo': 3.0}, 'hi', 'must be over lo=3'),
      ({'rule': 'interval', 'lo': float('nan')}, 'lo', 'is a λ'),
      ({'rule': 'interval', 'hi': 'much'}, 'hi', 'of the type of 2.55'),
      ({'rule': 'interval', 'eta': 1.0}, 'eta', 'no knob of interval, which has w, lo, hi'),
      ({'rule': 'beta', 'a': 0.5}, 'a', 'must be 1 to 100'),
      ({'rule': 'rescale', 'phi': 1.1}, 'phi', 'must be in [0, 1]'),
      ({'rule': 'apg', 'eta': -1.0}, 'eta', 'must be in [0, 1]'),
      ({'rule': 'apg', 'radius': -1.0}, 'radius', '0 shortens nothing'),
      ({'rule': 'apg_diffusers', 'momentum': -1.0}, 'momentum', '-0.99 to 0.99'),
      ({'rule': 'adaptive', 'theta': 3.0}, 'theta', 'is a cosine'),
      ({'rule': 'cfg_pp', 'w': (0.5, 1.5)}, 'w', 'use 0 to 1'),
      ({'rule': 'feedback', 'pi': 1.0}, 'pi', 'must be in (0, 1)'),
      ({'rule': 'feedback', 'temperature': -1.0}, 'temperature', 'must be 0 to 1000'),
      ({'rule': 'feedback', 'offset': float('inf')}, 'offset', 'must be -1000 to 1000'),
      ({'rule': 'feedback', 'w': (0.0, -1.0)}, 'w', 'the most that feedback guides'),
      ({'w': (-1.1e6,)}, 'w', 'at most 1e6'),
    ],
  )
  def test_what_is_wrong_is_named(self, change, field, says):
    [(found, remedy)] = rules.problems(self.GOOD | change)
    assert found == field and says in remedy

  @pytest.mark.parametrize('rule', rules.RULES)
  def test_a_rule_by_name_brings_its_knobs(self, rule):
    """And takes those of the one before away."""
    before = rules.fitted(self.GOOD | {'rule': 'apg', 'guide': 'run'})
    section = rules.fitted(before | {'rule': rule, 'w': (0.0, 1.0)})
    assert not list(rules.problems(section))
    own = section.keys() - {'pair', 'rule', 'guide', 'w'}
    assert own == set(knobs.defaults(rules.RULES[rule]))

  def test_a_knob_that_a_rule_needs_is_asked_for(self, monkeypatch):
    def late(towards, away, z, lam, memory, *, w, start):
      return rules.classifier_free(towards, away, z, lam, memory, w=w * (lam > start))

    monkeypatch.setitem(rules.RULES, 'late', late)
    [(field, remedy)] = rules.problems(self.GOOD | {'rule': 'late'})
    assert field == 'start' and 'late needs' in remedy
    assert not list(rules.problems(self.GOOD | {'rule': 'late', 'start': 0.0}))
