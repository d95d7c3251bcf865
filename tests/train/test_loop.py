"""Training: the same curve on any number of devices, exact resume, and honest failure."""

import functools
import hashlib
import json
import signal
import time

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
from cfg_jax.core.state import Mean
from cfg_jax.data import prepared
from cfg_jax.data.batches import Batch
from cfg_jax.equations import conditioning
from cfg_jax.methods import classifier_free
from cfg_jax.nets import unet
from cfg_jax.train import loop as train
from tests.conftest import command, load_config, run, tiny_flags

DROPOUT = {'model.dropout': 0.1}  # so that the test sees dropout's keys too


def restored(workdir) -> tuple[train_state.TrainState, dict]:
  """The state and the record of a run's newest checkpoint."""
  config, mesh = config_lib.of_run(workdir), sharding.data_mesh()
  abstract = jax.eval_shape(lambda: methods.make(config, mesh).init(config.seed))
  everywhere = sharding.replicated(mesh)
  return Checkpoints(workdir).restore(sharding.abstract(abstract, everywhere))


def state_sha256(workdir) -> tuple[int, str]:
  """(step, sha256 of every bit of params, ema and optimizer state) of the newest checkpoint."""
  state, _ = restored(workdir)
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(state):
    digest.update(np.asarray(leaf).tobytes())
  return int(state.step), digest.hexdigest()


def logged(workdir) -> list[dict]:
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def wait_for(condition, process, seconds=120):
  end = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < end, 'the command did not get there'
    time.sleep(0.02)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, data_dir):
  """The work directory of a run that nothing disturbed, in a process of its own."""
  workdir = tmp_path_factory.mktemp('uninterrupted')
  done = run('cfg_jax.train', *tiny_flags(workdir, data_dir, **DROPOUT))
  assert done.returncode == 0, done.stderr
  return workdir


def test_stopped_by_sigterm_and_resumed_is_bit_exact(uninterrupted, tmp_path, data_dir):
  config = config_lib.of_run(uninterrupted)
  flags = tiny_flags(tmp_path, data_dir, **DROPOUT | {'train.num_steps': 100_000})
  process = command('cfg_jax.train', *flags)
  wait_for(lambda: (tmp_path / 'metrics.jsonl').exists() and logged(tmp_path), process)
  begin = time.monotonic()
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGTERM, err
  assert time.monotonic() - begin < 10
  stopped_at = Checkpoints(tmp_path).steps()[-1]
  assert f'step {stopped_at}' in out

  end = max(stopped_at, config.train.num_steps) + 6
  longer = {'train.num_steps': end}
  for workdir in (tmp_path, uninterrupted):
    done = run('cfg_jax.train', *tiny_flags(workdir, data_dir, **DROPOUT | longer))
    assert done.returncode == 0, done.stderr
  assert state_sha256(tmp_path) == state_sha256(uninterrupted)
  assert state_sha256(tmp_path)[0] == end
  losses = [{line['step']: line['loss'] for line in logged(w)} for w in (tmp_path, uninterrupted)]
  assert losses[0][end] == losses[1][end]


def test_killed_and_resumed_is_bit_exact(tmp_path, data_dir):
  flags = tiny_flags(tmp_path, data_dir, **DROPOUT | {'train.num_steps': 100_000})
  process = command('cfg_jax.train', *flags)
  wait_for(lambda: list(tmp_path.glob('checkpoints/[0-9]*[0-9]')), process)
  process.kill()
  process.communicate()
  end = Checkpoints(tmp_path).steps()[-1] + 5
  straight = tmp_path / 'straight'
  for workdir in (tmp_path, straight):
    flags = tiny_flags(workdir, data_dir, **DROPOUT | {'train.num_steps': end})
    done = run('cfg_jax.train', *flags)
    assert done.returncode == 0, done.stderr
  assert state_sha256(tmp_path) == state_sha256(straight)
  assert [line['step'] for line in logged(tmp_path)] == [line['step'] for line in logged(straight)]


def test_one_and_eight_devices_give_one_loss_curve(tmp_path, data_dir):
  """However the batch is divided and the state lies, and also where that changes on the way."""
  divided = {'train.microbatches': 2, 'train.shard_optimizer': True}
  network = DROPOUT | {'model.channel_mults': (1,), 'model.attention_resolutions': (8,)}
  straight, changing = tmp_path / 'straight', tmp_path / 'changing'
  for workdir, devices, steps, changes in (
    (straight, '1', 24, {}),
    (changing, '8', 8, {}),
    (changing, '8', 16, divided),
    (changing, '1', 24, {}),
  ):
    changes = network | changes | {'train.num_steps': steps, 'train.log_every': 1}
    done = run(
      'cfg_jax.train', *tiny_flags(workdir, data_dir, **changes), JAX_NUM_CPU_DEVICES=devices
    )
    assert done.returncode == 0, done.stderr
  logs = [logged(workdir) for workdir in (straight, changing)]
  # Adam does not see by how much all gradients are too large: their norm does.
  for name, rtol in (('loss', 1e-5), ('grad_norm', 1e-3)):
    one, eight = ([line[name] for line in lines] for lines in logs)
    assert len(one) == 24
    np.testing.assert_allclose(one, eight, rtol=rtol)
    assert np.ptp(one) > 0.01  # a curve, not a constant


@pytest.mark.slow
def test_microbatches_move_no_sample_and_the_optimizers_state_is_shared_out():
  done = run('tests.on_devices', JAX_NUM_CPU_DEVICES='8')
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout)
  assert found['error of a mean'] < 1e-5
  assert set(found['collectives']) == {'all-reduce'}  # of gradients and losses, never of images
  whole, parts = (found[f'shard_optimizer={shard}'] for shard in (False, True))
  assert parts['params'] == whole['params'] == whole['ema']
  for name in ('ema', 'opt_state'):
    assert whole[name] / 8 <= parts[name] < whole[name] / 7.5
  for shard, held in ((False, whole), (True, parts)):
    planned = found[f'planned, {shard}']
    assert planned['EMA'] == held['ema']
    # Adam's and the schedule's counters are int32s.
    assert held['opt_state'] - planned["Adam's two moments"] == 2 * 4


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


def test_microbatches_keep_the_order_of_the_losses():
  """And each sample its key, whichever part it is in."""
  draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, 1000).astype(float))
  gradient = lambda params, noisy, keys: (noisy.sum(), noisy + 1000 * draw(keys))  # noqa: E731
  keys = jax.random.split(jax.random.key(0), 12)
  grads, losses = update.in_microbatches(gradient, 3)(jnp.float32(0), jnp.arange(12.0), keys)
  np.testing.assert_array_equal(losses, np.arange(12) + 1000 * draw(keys))
  assert grads == np.arange(12).sum() / 3


@pytest.mark.parametrize(('bad', 'log_every', 'logs'), [(7, 2, [2, 4, 6]), (8, 5, [5])])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_saves_nothing(
  tiny, tmp_path, monkeypatch, bad, log_every, logs
):
  """Also at a step that is saved and not logged."""
  tiny.train.log_every = log_every
  make = methods.make

  def poisoned(*args):
    method = make(*args)

    def step(state, batch):
      state, metrics = method.step(state, batch)
      loss = jnp.where(state.step == bad, jnp.nan, metrics['loss'].total)
      return state, metrics | {'loss': Mean(loss, 1)}

    return method._replace(step=step)

  monkeypatch.setattr(methods, 'make', poisoned)
  with pytest.raises(UserError, match=f'loss is nan at step {bad}'):
    train.train(tiny, tmp_path)
  assert Checkpoints(tmp_path).steps() == [4]
  assert [line['step'] for line in logged(tmp_path)] == logs


def test_ema_and_warm_up(tiny):
  """ema_k = d ema_{k−1} + (1−d) params_k, and Adam's first steps have the warm-up's length."""
  config = tiny
  method = methods.make(config, sharding.data_mesh())
  state, step = method.init(config.seed), jax.jit(method.step)
  batch = Batch(jnp.zeros((16, 8, 8, 1)), conditioning.given(jnp.zeros(16, jnp.int32)))
  ema, d = state.params, config.train.ema_decay
  for k in range(1, 4):
    before = state.params
    state, _ = step(state, batch)
    ema = optax.incremental_update(state.params, ema, 1 - d)
    # An Adam step is at most the learning rate in every coordinate (at constant gradients).
    moved = max(
      float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (before, state.params)))
    )
    rate = config.train.learning_rate * k / config.train.warmup_steps
    assert 0.5 * rate < moved < 1.5 * rate
  for a, b in zip(jax.tree.leaves(ema), jax.tree.leaves(state.ema)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_optimizer_is_adam_with_a_warm_up_on_clipped_gradients(tiny):
  """Kingma & Ba's algorithm 1 in float64, on gradients of norm at most train.grad_clip."""
  changes = {'adam_b1': 0.8, 'adam_b2': 0.95, 'grad_clip': 2.0, 'learning_rate': 0.1}
  tiny.train.update(changes | {'warmup_steps': 3})
  optimizer = update.make_optimizer(tiny.train)
  random = np.random.default_rng(0)
  x = {'a': jnp.zeros(3), 'b': jnp.zeros((2, 2))}
  state = optimizer.init(x)
  expected, m, v = np.zeros(7), np.zeros(7), np.zeros(7)
  for k, size in enumerate((30.0, 0.1, 5.0, 1.0, 20.0), start=1):
    g = random.normal(0, size, 7)
    grads = {
      'a': jnp.asarray(g[:3], jnp.float32),
      'b': jnp.asarray(g[3:].reshape(2, 2), jnp.float32),
    }
    updates, state = optimizer.update(grads, state, x)
    x = optax.apply_updates(x, updates)
    g *= min(1, 2 / np.linalg.norm(g))
    m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
    rate = 0.1 * min(1, k / 3)
    expected -= rate * (m / (1 - 0.8**k)) / (np.sqrt(v / (1 - 0.95**k)) + 1e-8)
    np.testing.assert_allclose(np.concatenate([x['a'], x['b'].ravel()]), expected, rtol=1e-4)


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


def test_training_learns(data_dir, tmp_path):
  """Sixty steps bring the loss from 1 (the output starts at zero) to under a half."""
  config = load_config(
    'digits',
    **{
      'data.dir': str(data_dir),
      'model.channels': 16,
      'model.norm_groups': 8,
      'model.head_channels': 16,
      'train.num_steps': 60,
      'train.warmup_steps': 10,
      'train.log_every': 10,
      'train.checkpoint_every': 60,
    },
  )
  train.train(config, tmp_path)
  for line in logged(tmp_path):
    quarters = [line[f'loss_quarter_{k}'] for k in (1, 2, 3, 4) if f'loss_quarter_{k}' in line]
    assert min(quarters) <= line['loss'] <= max(quarters)
    assert 0 <= line['loader_wait'] < 1 and line['images_per_s'] > 0
    assert 'utilisation' not in line  # nobody has published a peak of this CPU
  losses = [line['loss'] for line in logged(tmp_path)]
  assert 0.6 < losses[0] < 1.2
  assert losses[-1] < 0.5


def test_a_changed_config_is_refused_as_a_diff(tiny, tmp_path):
  config_lib.record(tiny, tmp_path)
  changed = tiny.copy_and_resolve_references()
  changed.method.p_uncond, changed.train.num_steps = 0.5, 99
  with pytest.raises(ValueError, match=r'method.p_uncond: 0.1 → 0.5') as error:
    train.train(changed, tmp_path)
  assert 'num_steps' not in str(error.value)  # a run may be made longer
  assert json.loads((tmp_path / 'config.json').read_text())['config']['method']['p_uncond'] == 0.1


def test_other_data_is_refused(tiny, tmp_path, monkeypatch):
  tiny.train.num_steps = 4
  train.train(tiny, tmp_path)
  monkeypatch.setattr(prepared, 'fingerprint', lambda source: 'other')
  tiny.train.num_steps = 8
  with pytest.raises(ValueError, match='fingerprint other'):
    train.train(tiny, tmp_path)
