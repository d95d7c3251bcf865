"""Jobs on this machine: a job is a model, and a few run at once."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import submitit

from cfg_jax.core import locks
from cfg_jax.sweep.grid import Run
from cfg_jax.sweep.jobs import Job
from cfg_jax.sweep.status import Status


class Local:
  """Jobs on this machine: processes that outlive the launcher.

  submitit's local executor starts all at once, so the launcher queues. Its timeout is put off for
  ever. It keeps the launcher's terminal and streams, so they are taken from it at the start.
  """

  name, poll_seconds, grace_seconds = 'local', 0.5, 0.0

  def __init__(self, workdir: Path, limit: int):
    """limit: how many jobs run at once."""
    self.limit = limit
    self._workdir, self._own = workdir, {}

  def todo(self, run: Run, status: Status) -> list[Job]:
    """All of a model is one job."""
    devices = os.environ.get('CUDA_VISIBLE_DEVICES')
    return [] if status.done else [Job(self._workdir, run, cuda_devices=devices)]

  def running(self, todo: list[Job]) -> set[str]:
    """The names of those that run, whoever started them."""
    own = {name for name, job in self._own.items() if job.state == 'RUNNING'}
    return own | {job.name for job in todo if locks.held(job.lock)}

  def submit(self, new: list[Job], logs: Path) -> list[str]:
    """Starts them; returns their ids."""
    executor = submitit.AutoExecutor(logs, cluster='local')
    executor.update_parameters(timeout_min=10**6, stderr_to_stdout=True)
    with _detached():
      for job in new:
        self._own[job.name] = executor.submit(job)
    return [self._own[job.name].job_id for job in new]

  def stop(self, todo: list[Job]) -> None:
    """SIGTERM to all that run, and waits until they have saved."""
    for job in self._own.values():
      if job.state == 'RUNNING':
        os.kill(int(job.job_id), signal.SIGTERM)  # submitit's controller hands it on
    own = self.running([])
    for job in todo:
      if job.name not in own and (pid := locks.holder(job.lock)):
        with contextlib.suppress(ProcessLookupError):
          os.kill(pid, signal.SIGTERM)
    while self.running(todo):
      time.sleep(0.2)


@contextlib.contextmanager
def _detached() -> Iterator[None]:
  """Processes started inside ignore the terminal's Ctrl-C and hang-up, and hold no pipe of ours."""
  ignored = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGHUP)}
  sys.stdout.flush()
  sys.stderr.flush()
  streams = [os.dup(i) for i in range(3)]
  null = os.open(os.devnull, os.O_RDWR)
  try:
    for i in range(3):
      os.dup2(null, i)
    yield
  finally:
    for i, stream in enumerate(streams):
      os.dup2(stream, i)
      os.close(stream)
    os.close(null)
    for s, handler in ignored.items():
      signal.signal(s, handler)
