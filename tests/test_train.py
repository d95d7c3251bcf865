"""Training: the same curve on any number of devices, exact resume, and honest failure."""

import hashlib
import json
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfg_jax import config as config_lib
from cfg_jax import sharding, train, train_state
from cfg_jax.checkpoint import Checkpoints
from tests.conftest import command, load_config, run, tiny_flags

DROPOUT = {'model.dropout': 0.1}  # so that the test sees dropout's keys too


def restored(workdir) -> tuple[train_state.TrainState, dict]:
  """The state and the record of a run's newest checkpoint."""
  config = config_lib.of_run(workdir)
  optimizer = train.make_optimizer(config.train)
  abstract = jax.eval_shape(
    lambda: train_state.create(config_lib.network_of(config), optimizer, config.seed)
  )
  everywhere = sharding.replicated(sharding.data_mesh())
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
  curves = []
  for devices in ('1', '8'):
    workdir = tmp_path / devices
    changes = {'train.num_steps': 20, 'train.log_every': 1, 'train.checkpoint_every': 20}
    flags = tiny_flags(workdir, data_dir, **changes)
    done = run('cfg_jax.train', *flags, JAX_NUM_CPU_DEVICES=devices)
    assert done.returncode == 0, done.stderr
    curves.append([line['loss'] for line in logged(workdir)])
  assert len(curves[0]) == 20
  np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)
  assert np.ptp(curves[0]) > 0.01  # a curve, not a constant


def test_a_loss_that_is_not_finite_stops_with_its_step_and_saves_nothing(
  tiny, tmp_path, monkeypatch
):
  make = train.make_train_step

  def poisoned(config, optimizer):
    step = make(config, optimizer)

    def poisoned_step(state, batch):
      state, metrics = step(state, batch)
      return state, metrics | {'loss': jnp.where(state.step == 7, jnp.nan, metrics['loss'])}

    return poisoned_step

  monkeypatch.setattr(train, 'make_train_step', poisoned)
  with pytest.raises(FloatingPointError, match='loss is nan at step 7'):
    train.train(tiny, tmp_path)
  assert Checkpoints(tmp_path).steps() == [4]
  assert [line['step'] for line in logged(tmp_path)] == [2, 4, 6]


def test_ema_and_warm_up(tiny):
  """ema_k = d ema_{k−1} + (1−d) params_k, and Adam's first steps have the warm-up's length."""
  config = tiny
  optimizer = train.make_optimizer(config.train)
  network = config_lib.network_of(config)
  state = train_state.create(network, optimizer, config.seed)
  step = jax.jit(train.make_train_step(config, optimizer))
  batch = {'x': jnp.zeros((16, 8, 8, 1)), 'c': jnp.zeros(16, jnp.int32)}
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
  losses = [line['loss'] for line in logged(tmp_path)]
  assert 0.6 < losses[0] < 1.2
  assert losses[-1] < 0.5


def test_a_changed_config_is_refused_as_a_diff(tiny, tmp_path):
  config_lib.record(tiny, tmp_path)
  changed = tiny.copy_and_resolve_references()
  changed.train.p_uncond, changed.train.num_steps = 0.5, 99
  with pytest.raises(ValueError, match=r'train.p_uncond: 0.1 → 0.5') as error:
    train.train(changed, tmp_path)
  assert 'num_steps' not in str(error.value)  # a run may be made longer
  assert json.loads((tmp_path / 'config.json').read_text())['config']['train']['p_uncond'] == 0.1


def test_other_data_is_refused(tiny, tmp_path, monkeypatch):
  tiny.train.num_steps = 4
  train.train(tiny, tmp_path)
  monkeypatch.setattr(train.datasets, 'fingerprint', lambda source: 'other')
  tiny.train.num_steps = 8
  with pytest.raises(ValueError, match='fingerprint other'):
    train.train(tiny, tmp_path)
