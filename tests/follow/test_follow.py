"""Following a run: each checkpoint is evaluated once, until the last one."""

import json
import shutil
import types

import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core.errors import UserError
from cfg_jax.follow import __main__ as follow
from cfg_jax.train import loop as train


def evaluated(workdir) -> list[tuple[int, float]]:
  lines = (workdir / 'evals.jsonl').read_text().splitlines()
  records = map(json.loads, lines)
  return [(r['step'], r['settings']['sample']['guidance']['w']) for r in records]


def test_each_checkpoint_is_evaluated_until_the_last(tiny, tmp_path, monkeypatch):
  tiny.train.num_steps = 4
  train.train(tiny, tmp_path)
  tiny.train.num_steps = 8
  config_lib.record(tiny, tmp_path)
  slept = []

  def sleep(seconds):
    slept.append(seconds)
    train.train(tiny, tmp_path)

  monkeypatch.setattr(follow, 'time', types.SimpleNamespace(sleep=sleep))
  follow.follow(config_lib.of_run(tmp_path), tmp_path)
  assert evaluated(tmp_path) == [(4, 0.0), (4, 1.0), (8, 0.0), (8, 1.0)]
  assert len(slept) == 1


@pytest.mark.slow
def test_a_checkpoint_that_goes_while_it_is_read_is_left_for_a_newer_one(
  tiny, tmp_path, monkeypatch
):
  tiny.train.num_steps = 8
  train.train(tiny, tmp_path)
  tiny.train.num_steps = 12
  config_lib.record(tiny, tmp_path)
  drawn = []

  def vanishing(config, workdir, step):
    drawn.append(step)
    if len(drawn) == 1:
      shutil.rmtree(tmp_path / 'checkpoints' / '8')
      raise UserError('No whole checkpoint.')

  monkeypatch.setattr(follow, 'generate', vanishing)
  monkeypatch.setattr(follow, 'evaluate', lambda *args, **kwargs: drawn.append('evaluated'))
  sleep = lambda seconds: train.train(tiny, tmp_path)  # noqa: E731
  monkeypatch.setattr(follow, 'time', types.SimpleNamespace(sleep=sleep))
  follow.follow(config_lib.of_run(tmp_path), tmp_path)
  assert drawn == [8, 4, 'evaluated', 12, 'evaluated']


def test_one_that_stays_and_cannot_be_read_is_an_error(tiny, tmp_path, monkeypatch):
  tiny.train.num_steps = 4
  train.train(tiny, tmp_path)

  def fails(config, workdir, step):
    raise UserError('No whole checkpoint.')

  monkeypatch.setattr(follow, 'generate', fails)
  with pytest.raises(UserError, match='No whole'):
    follow.follow(config_lib.of_run(tmp_path), tmp_path)


def test_a_step_is_refused(tmp_path, call):
  done = call(follow, '--workdir', tmp_path, '--step', '4')
  assert done.returncode == 2 and done.stderr.startswith('--step=4: each new checkpoint is taken')
