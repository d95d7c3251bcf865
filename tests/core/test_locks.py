"""Locks: held by one process, let go of however it ends, so that no work is done twice."""

import multiprocessing
import os
import signal
import time

from cfg_jax.core import locks


def _hold(path, ready):
  with locks.claim(path) as claimed:
    ready.put(claimed)
    time.sleep(60)


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
  lock = tmp_path / 'jobs' / 'p_uncond=0.1' / 'lock'
  assert not locks.held(lock) and locks.holder(lock) is None
  context = multiprocessing.get_context('fork')
  ready = context.Queue()
  process = context.Process(target=_hold, args=(lock, ready))
  process.start()
  assert ready.get(timeout=10)
  assert locks.held(lock) and locks.holder(lock) == process.pid
  with locks.claim(lock, seconds=0.2) as claimed:
    assert not claimed
  assert locks.holder(lock) == process.pid  # one who tried in vain has not changed the name
  os.kill(process.pid, signal.SIGKILL)
  process.join(10)
  assert not locks.held(lock) and locks.holder(lock) is None
  with locks.claim(lock, seconds=0) as claimed:
    assert claimed and locks.held(lock)


def test_shared_locks_keep_each_other_in_and_others_out(tmp_path):
  lock = tmp_path / 'lock'
  with locks.claim(lock, shared=True, seconds=0) as a, locks.claim(lock, True, 0) as b:
    assert a and b
    with locks.claim(lock, seconds=0) as claimed:
      assert not claimed
