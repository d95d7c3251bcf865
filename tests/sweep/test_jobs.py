"""A sweep's jobs: their shares of the work, and the locks by which nothing is worked on twice."""

import multiprocessing
import os
import signal
import time

import pytest

from cfg_jax.sweep import grid, jobs


@pytest.fixture
def run(tiny):
  return grid.runs_of(tiny, {'train.p_uncond': [0.1]})[0]


@pytest.mark.parametrize('n', (1, 2, 3, 20, 33))
def test_parts_are_the_whole_and_do_not_overlap(run, tmp_path, n):
  parts = [jobs.Job(tmp_path, run, 'generate', 0, (k, n)).part_of(20) for k in range(n)]
  assert [i for part in parts for i in part] == list(range(20))
  assert max(map(len, parts)) - min(map(len, parts)) <= 1


def _hold(path, ready):
  with jobs.claim(path) as claimed:
    ready.put(claimed)
    time.sleep(60)


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
  lock = tmp_path / 'jobs' / 'p_uncond=0.1' / 'lock'
  assert not jobs.held(lock) and jobs.holder(lock) is None
  context = multiprocessing.get_context('fork')
  ready = context.Queue()
  process = context.Process(target=_hold, args=(lock, ready))
  process.start()
  assert ready.get(timeout=10)
  assert jobs.held(lock) and jobs.holder(lock) == process.pid
  with jobs.claim(lock, seconds=0.2) as claimed:
    assert not claimed
  assert jobs.holder(lock) == process.pid  # one who tried in vain has not changed the name
  os.kill(process.pid, signal.SIGKILL)
  process.join(10)
  assert not jobs.held(lock) and jobs.holder(lock) is None
  with jobs.claim(lock, seconds=0) as claimed:
    assert claimed and jobs.held(lock)


def test_shared_locks_keep_each_other_in_and_others_out(tmp_path):
  lock = tmp_path / 'lock'
  with jobs.claim(lock, shared=True, seconds=0) as a, jobs.claim(lock, True, 0) as b:
    assert a and b
    with jobs.claim(lock, seconds=0) as claimed:
      assert not claimed
