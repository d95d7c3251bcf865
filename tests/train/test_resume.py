"""Training goes on after SIGTERM and after a kill, to the last bit."""

import hashlib
import json
import signal
import time

import jax
import numpy as np
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core import state as train_state
from cfg_jax.core.checkpoint import Checkpoints
from tests.conftest import command, run, tiny_flags

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


@pytest.mark.slow
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
