"""Training: the same curve on any number of devices, and honest failure."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import locks
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.core.errors import UserError
from cfg_jax.core.state import Mean
from cfg_jax.data import batches as data
from cfg_jax.data import prepared
from cfg_jax.train import loop as train
from tests.conftest import load_config, run, tiny_flags
from tests.train.test_resume import DROPOUT, logged


@pytest.mark.slow  # test_recorded.py has a curve on eight devices too
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


@pytest.mark.parametrize(('bad', 'log_every', 'logs'), [(7, 2, [2, 4, 6]), (8, 5, [5])])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_saves_nothing(
  tiny, tmp_path, monkeypatch, bad, log_every, logs
):
  """Also at a step that is saved and not logged."""
  tiny.train.log_every = log_every
  make = methods.make

  def poisoned(*args):
    method = make(*args)

    def step(state, batch, settings):
      state, metrics = method.step(state, batch, settings)
      loss = jnp.where(state.step == bad, jnp.nan, metrics['loss'].total)
      return state, metrics | {'loss': Mean(loss, 1)}

    return method._replace(step=step)

  monkeypatch.setattr(methods, 'make', poisoned)
  with pytest.raises(UserError, match=f'loss is nan at step {bad}'):
    train.train(tiny, tmp_path)
  assert Checkpoints(tmp_path).steps() == [4]
  assert [line['step'] for line in logged(tmp_path)] == logs


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


def test_a_config_may_ask_for_random_crops(tiny, tmp_path, monkeypatch):
  """The first batch is of the images of the same config without, a third of them as they were."""

  class Stopped(Exception):
    pass

  def stop(*args, **kwargs):
    batches = data.Batches(*args, **kwargs)
    found.append(next(batches))
    batches.close()
    raise Stopped

  monkeypatch.setattr(train, 'Batches', stop)
  found = []
  for crop in (False, True):
    config = config_lib.change(tiny, ['train.batch_size=256', f'data.crop={crop}'])
    with pytest.raises(Stopped):
      train.train(config, tmp_path / str(crop))
  whole, cropped = found
  np.testing.assert_array_equal(whole.cond.value, cropped.cond.value)
  assert 0.2 < (whole.x == cropped.x).all((1, 2, 3)).mean() < 0.5


def test_other_data_is_refused(tiny, tmp_path, monkeypatch):
  tiny.train.num_steps = 4
  train.train(tiny, tmp_path)
  monkeypatch.setattr(prepared, 'fingerprint', lambda source: 'other')
  tiny.train.num_steps = 8
  with pytest.raises(ValueError, match='fingerprint other'):
    train.train(tiny, tmp_path)


def test_a_second_trainer_of_one_work_directory_is_refused(tiny, tmp_path):
  tiny.train.num_steps = 4
  with locks.claim(tmp_path / 'train.lock') as claimed:
    assert claimed
    with pytest.raises(UserError, match=f'trained by another process, process {os.getpid()}'):
      train.train(tiny, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['train.lock']
