"""A sweep's queue: starts jobs through submitit, here or on Slurm, and watches over them.

What is done is read from the results, what is running from the locks and from Slurm: the launcher
can be killed at any time, and another one goes on.
"""

import math
import os
import signal
import sys
import time
from pathlib import Path

from cfg_jax import papers
from cfg_jax.report import page
from cfg_jax.sweep import records, status
from cfg_jax.sweep.grid import Run
from cfg_jax.sweep.jobs import Job
from cfg_jax.sweep.local import Local
from cfg_jax.sweep.slurm import Slurm
from cfg_jax.sweep.status import Board, Status


def launch(workdir: Path, runs: list[Run], cluster: Local | Slurm) -> list[str]:
  """Brings every run to its end, and the report with them; returns the names of jobs that did not.

  A job is tried once; one that failed before, by an error of its own, is not tried. SIGTERM and
  SIGINT stop what runs here, with its work saved, and raise SystemExit.
  """
  # Jobs find this package where it was found here, in a checkout that is not installed too.
  os.environ['PYTHONPATH'] = os.pathsep.join(sys.path)
  signals = []
  for s in (signal.SIGTERM, signal.SIGINT):
    signal.signal(s, lambda signum, frame: signals.append(signal.Signals(signum)))
  shown, found = Board(), {}
  tried, seen, reported = set(), {}, None

  def left() -> list[Job]:
    for run in runs:
      if run.name not in found or not found[run.name].done:
        found[run.name] = status.read(workdir, run)
    return [job for run in runs for job in cluster.todo(run, found[run.name])]

  todo = left()
  while True:
    now = time.monotonic()
    running = cluster.running(todo)
    seen |= dict.fromkeys(running, now)
    todo = left()  # in this order: what ended in between has left its results
    live = {j.name for j in todo if now - seen.get(j.name, -math.inf) <= cluster.grace_seconds}
    waiting = [j for j in todo if j.name not in tried | live and not j.failure.exists()]
    if new := waiting[: max(0, cluster.limit - len(live))]:
      logs = workdir / 'jobs' / f'{time.strftime("%Y%m%d-%H%M%S")}-{os.getpid()}-{len(tried)}'
      records.record(workdir, new, cluster.submit(new, logs), logs, cluster.name)
      started = {job.name for job in new}
      running, live = running | started, live | started
      seen |= dict.fromkeys(live, now)
    tried |= live
    shown.show([(run.name, found[run.name], _state(run, found, todo, live, tried)) for run in runs])
    done = sum(s.done for s in found.values()) if live else math.inf
    if done != reported and any(s.cells or s.images for s in found.values()):
      page.write_report(workdir, papers.DEFAULT.study)
      reported = done
    if not live:
      return [job.name for job in todo]
    # Of thousands of cells a look takes a second: it never takes more than a twentieth of a core,
    # but for one as soon as a job has ended.
    next_poll, until = time.monotonic(), now + 20 * (time.monotonic() - now)
    while not signals:
      time.sleep(0.1)
      if time.monotonic() >= next_poll + cluster.poll_seconds:
        next_poll = time.monotonic()
        if next_poll >= until or running - cluster.running(todo):
          break
    if signals:
      signal.signal(signals[0], signal.SIG_DFL)  # told again, the launcher goes at once
      words = 'started again with the same command, the sweep goes on.'
      print(f'{signals[0].name}: {words}', flush=True)
      cluster.stop(todo)
      raise SystemExit(128 + signals[0])


def _state(
  run: Run, found: dict[str, Status], todo: list[Job], live: set[str], tried: set[str]
) -> str:
  """One word on a run."""
  own = [job for job in todo if job.run.name == run.name]
  if found[run.name].done:
    return 'done'
  if any(job.name in live for job in own):
    return 'running'
  if any(job.failure.exists() for job in own):
    return 'failed'
  return 'stopped' if any(job.name in tried for job in own) else 'waiting'
