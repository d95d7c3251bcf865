"""What a run tells of itself: means that are means, pictures in their places, a trace on demand."""

import json
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import methods
from cfg_jax.core import pictures, runtime, sharding
from cfg_jax.core.errors import UserError
from cfg_jax.core.state import Mean
from cfg_jax.methods import drawing
from cfg_jax.methods.method import by_quarter
from cfg_jax.plan import cost, devices
from cfg_jax.train import log as train_log
from cfg_jax.train import loop as train
from cfg_jax.train.profile import ProfileSignal


def lines(workdir) -> list[dict]:
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def test_quarters_of_lambda():
  lam = jnp.array([-2.0, -0.01, 0.0, 1.99, 2.0, 5.9, 6.0])  # of [−2, 6]: quarters begin at 0, 2, 4
  losses = 2.0 ** jnp.arange(7)
  found = by_quarter(losses, lam, -2.0, 6.0)
  assert list(found) == [f'loss_quarter_{k}' for k in (1, 2, 3, 4)]
  np.testing.assert_array_equal([m.total for m in found.values()], [1 + 2, 4 + 8, 16, 32 + 64])
  np.testing.assert_array_equal([m.count for m in found.values()], [2, 2, 1, 2])


def test_a_line_has_means_over_samples_shares_of_time_and_no_empty_quarter(tmp_path, monkeypatch):
  clock = iter([0.0, 1.0, 1.5, 2.0, 3.0, 8.0, 8.0])
  monkeypatch.setattr(train_log, 'time', types.SimpleNamespace(monotonic=lambda: next(clock)))
  log = train_log.Log(tmp_path, 0, batch_size=6, peak_images_per_s=10.0)  # at 0
  for step, loss, sums, counts in (
    (1, 2.0, [1, 0, 6, 0], [1, 0, 3, 0]),
    (2, 4.0, [5, 0, 6, 0], [3, 0, 1, 0]),
  ):
    assert log.wait_for(iter([step])) == step  # 1 to 1.5, and 2 to 3
    metrics = {'loss': Mean(np.float32(loss), 1), 'grad_norm': Mean(np.float32(1), 1)}
    for k, (total, count) in enumerate(zip(sums, counts), start=1):
      metrics[f'loss_quarter_{k}'] = Mean(np.float32(total), np.int32(count))
    log.add(step, metrics)
  log.write(2)  # at 8
  log.close()
  assert lines(tmp_path) == [
    {
      'step': 2,
      'loss': 3.0,
      'grad_norm': 1.0,
      'loss_quarter_1': 6 / 4,
      'loss_quarter_3': 12 / 4,
      'images_per_s': 12 / 8,
      'utilisation': 12 / 8 / 10,
      'loader_wait': 1.5 / 8,
    }
  ]
  assert list((tmp_path / 'tensorboard').iterdir())


def test_the_step_that_was_compiled_is_in_no_rate(tmp_path, monkeypatch):
  now = types.SimpleNamespace(seconds=0.0)
  monkeypatch.setattr(train_log, 'time', types.SimpleNamespace(monotonic=lambda: now.seconds))
  log = train_log.Log(tmp_path, 0, batch_size=6, peak_images_per_s=None)
  log.wait_for(iter([0]))
  now.seconds = 100.0  # it is compiled
  log.start_clock()
  assert log.note == ''
  for step in (1, 2, 3):
    log.add(step, {'loss': Mean(np.float32(step), 1)})
    now.seconds += 2 if step < 3 else 0
  assert log.note == 'loss 3.000'
  log.write(3)
  log.close()
  assert lines(tmp_path) == [{'step': 3, 'loss': 2.0, 'images_per_s': 12 / 4, 'loader_wait': 0.0}]


def test_what_was_logged_beyond_the_step_is_dropped_with_torn_lines(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"st')
  train_log.Log(tmp_path, 4, 1, None).close()
  assert lines(tmp_path) == [{'step': 2}, {'step': 4}]


def test_a_damaged_log_is_put_aside_and_gone_on_with(tmp_path, capsys):
  damaged = '{"step": 2}\n{"st\n{"stop": 3}\n{"step": 4}\n'
  (tmp_path / 'metrics.jsonl').write_text(damaged)
  train_log.Log(tmp_path, 4, 1, None).close()
  assert lines(tmp_path) == [{'step': 2}, {'step': 4}]
  assert (tmp_path / 'metrics.damaged.jsonl').read_text() == damaged
  assert f'{tmp_path}/metrics.jsonl was damaged' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['loss', 'grad_norm'])
def test_what_is_not_finite_is_named(tmp_path, name):
  log = train_log.Log(tmp_path, 0, 1, None)
  metrics = {'loss': Mean(1.0, 1), 'grad_norm': Mean(1.0, 1)} | {name: Mean(np.float32('inf'), 1)}
  with pytest.raises(UserError, match=f'{name} is inf at step 3'):
    log.add(3, metrics)


def test_the_peak_is_known_where_it_is_published(tiny, monkeypatch):
  assert cost.peak_images_per_s(tiny) is None
  monkeypatch.setattr(devices, 'of_kind', lambda kind: devices.DEVICES['v100'])
  flops = cost.image_flops(tiny).train.compiler
  assert cost.peak_images_per_s(tiny) == jax.device_count() * 15.7e12 / flops
  tiny.model.remat = True  # what it repeats is not work
  assert cost.peak_images_per_s(tiny) == jax.device_count() * 15.7e12 / flops
  tiny.model.dtype = 'bfloat16'  # a V100 has none
  assert cost.peak_images_per_s(tiny) is None


def test_the_grid_has_classes_as_rows_and_w_as_columns_from_one_noise(tiny, monkeypatch):
  tiny.sample.guidance.w = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
  mesh = sharding.data_mesh()
  random = np.random.default_rng(0)
  params = jax.eval_shape(lambda: methods.make(tiny, mesh).init(0)).params
  params = jax.tree.map(lambda p: random.normal(0, 0.2, p.shape).astype(np.float32), params)
  named = []

  def unlabelled(images, *names, gap):
    named.append(names)
    return pictures.tile(images[:, :, ::4, ::4])

  monkeypatch.setattr(pictures, 'labelled', unlabelled)
  grid = train_log.make_grid(tiny, mesh)(params)
  strengths, classes = [0.0, 1.0, 2.0, 4.0], [0, 1, 3, 4, 5, 6, 8, 9]
  assert named == [(list('01345689'), ['w = 0', 'w = 1', 'w = 2', 'w = 4'])]
  assert grid.shape == (8 * 8, 4 * 8, 1) and grid.dtype == np.uint8
  draw = drawing.make_sampler(tiny, mesh)
  for column, w in enumerate(strengths):
    knobs = {'w': np.full(8, w, np.float32)}
    alone = draw(params, np.arange(8), np.array(classes), knobs, np.uint32(0))
    for row in range(8):
      cell = grid[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
      assert np.median(np.abs(cell.astype(int) - np.asarray(alone[row]))) <= 1
  cells = grid.reshape(8, 8, 4, 8).swapaxes(1, 2).reshape(32, -1)
  assert len(np.unique(cells, axis=0)) == 32
  tiny.method.p_uncond = 0.0  # ∅ was never trained
  assert train_log.make_grid(tiny, mesh)(params).shape == (8 * 8, 8, 1)


def test_grids_are_shown_every_so_many_steps(tiny, tmp_path, monkeypatch):
  shown = []
  monkeypatch.setattr(train_log.Log, 'picture', lambda self, *args: shown.append(args))
  tiny.train.sample_every = 5
  train.train(tiny, tmp_path)
  assert [step for _, step, _ in shown] == [5, 10]
  assert shown[0][2].shape == shown[1][2].shape and shown[0][2].shape[0] > 8 * 32
  assert (shown[0][2] != shown[1][2]).any()


def test_the_signal_has_ten_steps_traced(tmp_path, capsys):
  step = jax.jit(lambda x: x + 1)
  x, traced = jnp.zeros(3), []
  before = signal.getsignal(signal.SIGUSR1)
  with ProfileSignal(tmp_path) as profile:
    for i in range(20):
      if i == 4:
        signal.raise_signal(signal.SIGUSR1)
      profile.before_step(x)
      traced.append(bool(profile._left))
      x = step(x)
  assert traced == [4 <= i < 14 for i in range(20)]
  assert list(tmp_path.glob('tensorboard/plugins/profile/*/*.xplane.pb'))
  assert signal.getsignal(signal.SIGUSR1) == before
  asked, found = runtime.programs['asked for'], runtime.programs['from the cache']
  assert f'{found} of {asked} compiled programs came from the cache.' in capsys.readouterr().out
