"""Algorithm 1 as a training step: what it draws, and what it leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding, update
from cfg_jax.core import state as train_state
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.core.errors import UserError
from cfg_jax.data.batches import Batch
from cfg_jax.equations import conditioning
from cfg_jax.methods import classifier_free, owners
from cfg_jax.nets import unet


@pytest.mark.slow
def test_microbatches_have_the_whole_batchs_loss_and_gradient(tiny, monkeypatch):
  """To rounding; the same λ, ε, labels and dropped units, or it would be far from that."""
  tiny.model.dropout = 0.1
  keep = optax.GradientTransformation(  # its state is the gradient
    lambda params: params, lambda grads, state, params: (jax.tree.map(jnp.zeros_like, grads), grads)
  )
  monkeypatch.setattr(classifier_free, 'make_optimizer', lambda train: keep)
  random = np.random.default_rng(0)
  mesh = sharding.data_mesh()
  params = jax.eval_shape(lambda: methods.make(tiny, mesh).init(0)).params
  params = jax.tree.map(lambda p: random.normal(0, 0.2, p.shape).astype(np.float32), params)
  x = random.uniform(-1, 1, (16, 8, 8, 1)).astype(np.float32)
  batch = Batch(x, conditioning.given(jnp.arange(16) % 10))

  def step(microbatches):
    tiny.train.microbatches = microbatches
    state = train_state.TrainState(np.int32(3), params, params, params)
    state, metrics = jax.jit(methods.make(tiny, mesh).step)(state, batch)
    return jax.device_get((state.opt_state, metrics))

  (whole, expected), (grads, metrics) = step(1), step(4)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), metrics, expected)
  error = jax.tree.map(np.subtract, grads, whole)
  norm = lambda tree: np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(tree)))  # noqa: E731
  assert norm(error) <= 1e-5 * norm(whole)
  for a, b in zip(jax.tree.leaves(error), jax.tree.leaves(whole)):
    assert norm(a) <= 1e-4 * norm(b)


def test_ema_and_warm_up(tiny):
  """ema_k = d ema_{k−1} + (1−d) params_k, and Adam's first steps have the warm-up's length."""
  config = tiny
  method = methods.make(config, sharding.data_mesh())
  state, step = jax.jit(method.init)(config.seed), jax.jit(method.step)
  batch = Batch(jnp.zeros((16, 8, 8, 1)), conditioning.given(jnp.zeros(16, jnp.int32)))
  ema, d = state.params, config.train.ema_decay
  average = jax.jit(lambda new, old: optax.incremental_update(new, old, 1 - d))
  for k in range(1, 4):
    before = state.params
    state, _ = step(state, batch)
    ema = average(state.params, ema)
    # An Adam step is at most the learning rate in every coordinate (at constant gradients).
    moved = max(
      float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (before, state.params)))
    )
    rate = config.train.learning_rate * k / config.train.warmup_steps
    assert 0.5 * rate < moved < 1.5 * rate
  for a, b in zip(jax.tree.leaves(ema), jax.tree.leaves(state.ema)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('dropout', [0.0, 0.5])
def test_each_step_draws_anew_and_drops_out_where_asked(tiny, monkeypatch, dropout):
  """With a network that puts out what its key draws, or else nothing."""
  tiny.model.dropout = dropout

  def apply(params, z, lam, cond, keys=None):
    draw = jax.vmap(lambda key: 100 * jax.random.normal(key, z.shape[1:]))
    return params + (jnp.zeros_like(z) if keys is None else draw(keys))

  monkeypatch.setattr(unet, 'apply_fn', lambda network: apply)
  zero = {'network': jnp.float32(0)}
  method = methods.make(tiny, sharding.data_mesh())
  opt_state = {'network': update.make_optimizer(tiny.train).init(zero['network'])}
  step = jax.jit(method.step)
  batch = Batch(jnp.zeros((16, 8, 8, 1)), conditioning.given(jnp.zeros(16, jnp.int32)))
  losses = []
  for k in (3, 4, 3):
    state = train_state.TrainState(jnp.int32(k), zero, zero, opt_state)
    state, metrics = step(state, batch)
    assert state.step == k + 1
    losses.append(float(metrics['loss'].total))
  assert losses[0] == losses[2] != losses[1]
  assert losses[0] == pytest.approx(1e4 if dropout else 1, rel=0.2)  # mean of ε², and of the key's


@pytest.mark.parametrize(('p_uncond', 'lacks'), [(0.1, ''), (0.0, 'null'), (1.0, 'accuracy')])
def test_its_scores_are_bits_per_dimension_by_the_bound_and_by_its_grid(tiny, p_uncond, lacks):
  tiny.method.p_uncond = p_uncond
  method = methods.make(tiny, sharding.data_mesh())
  params = jax.eval_shape(lambda: method.init(0)).params
  x, keys = (
    jax.ShapeDtypeStruct((6, 8, 8, 1), jnp.float32),
    jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 6)),
  )
  cond = jax.eval_shape(lambda: conditioning.given(jnp.zeros(6, jnp.int32)))
  found = jax.eval_shape(method.score, params, Batch(x, cond), keys)
  names = {f'bits_per_dim{end}' for end in ('', '_T', '_null', '_T_null')} | {'accuracy'}
  names |= {'prior', 'reconstruction', 'diffusion'}
  if p_uncond == 1:
    names -= {'bits_per_dim', 'bits_per_dim_T'}
  assert found.keys() == {name for name in names if not lacks or lacks not in name}
  assert {value.shape for value in found.values()} == {(6,)}


def says_a_number(params, z, lam, cond, keys=None):
  """A network that says a number of each class and of ∅."""
  return jnp.zeros_like(z) + params[jnp.where(cond.given, cond.value, 10)][:, None, None, None]


BATCH = Batch(jnp.zeros((16, 8, 8, 1)), conditioning.given(jnp.arange(16) % 10))


def test_a_step_is_taught_guidance_by_the_ema(tiny, monkeypatch):
  """What has a class; ∅ is not taught."""
  config = config_lib.change(tiny, ['method.guidance=3', 'method.p_uncond=0.5'])  # k = 3/4
  seen = lambda state, noisy, keys: (state, noisy.lam, {'noisy': noisy})  # noqa: E731
  monkeypatch.setattr(unet, 'apply_fn', lambda network: says_a_number)
  monkeypatch.setattr(classifier_free, 'descent', lambda *_: seen)
  params, ema = ({'network': size * jnp.arange(11.0)} for size in (1, -2))
  state = train_state.TrainState(jnp.int32(0), params, ema, {})
  taught, plain = (
    jax.jit(methods.make(changed, sharding.data_mesh()).step)(state, BATCH)[1]['noisy']
    for changed in (config, config_lib.change(config, ['method.guidance=0']))
  )
  shift = (taught.eps - plain.eps)[:, 0, 0, 0]
  want = np.where(plain.cond.given, 0.75 * -2 * (np.arange(16) % 10 - 10), 0)
  np.testing.assert_allclose(shift, want, atol=1e-5)
  assert 0 < plain.cond.given.sum() < 16


def test_taught_by_its_ema_it_goes_on_from_a_checkpoint_bit_for_bit(tiny, tmp_path, monkeypatch):
  config, mesh = config_lib.change(tiny, ['method.guidance=3']), sharding.data_mesh()
  monkeypatch.setattr(unet, 'apply_fn', lambda network: says_a_number)
  step = jax.jit(methods.make(config, mesh).step)
  optimizer = {'network': update.make_optimizer(config.train)}
  state = train_state.create({'network': jnp.arange(11.0)}, optimizer)
  for _ in range(2):
    state, _ = step(state, BATCH)
  checkpoints = Checkpoints(tmp_path, keep=1)
  checkpoints.save(2, state, {})
  checkpoints.close()
  abstract = sharding.abstract(jax.eval_shape(lambda: state), sharding.replicated(mesh))
  again, _ = Checkpoints(tmp_path).restore(abstract)
  for _ in range(2):
    (state, _), (again, _) = step(state, BATCH), step(again, BATCH)
  jax.tree.map(np.testing.assert_array_equal, state, again)
  assert (state.ema['network'] != state.params['network']).all()


@pytest.mark.parametrize(
  'texts, says',
  [
    (['method.guidance=-0.1'], 'guidance=-0.1 is the w of a pass: use 0'),
    (['method.guidance=21'], 'guidance=21.0 is the w of a pass: use 0'),
    (
      ['method.guidance=1', 'method.p_uncond=0'],
      'guidance=1.0 needs ∅, never seen at method.p_unc',
    ),
    (['method.guidance=1', 'method.p_uncond=1'], 'guidance=1.0 needs classes, never seen'),
    (['model.late_condition=-1'], 'late_condition=-1 must be a whole number, at least 0'),
    (
      ['model.late_condition=8'],
      'late_condition=8 leaves the class none of the 8 stages: use 0 to',
    ),
  ],
)
def test_what_cannot_be_learnt_is_one_line(tiny, texts, says):
  with pytest.raises(UserError, match=says) as raised:
    config_lib.check(config_lib.change(tiny, texts), owners.OWNERS, 1)
  assert str(raised.value).count('\n') == 0
