"""A sweep's queue: starts jobs through submitit, here or on Slurm, and watches over them.

What is done is read from the results, what is running from the locks and from Slurm: the launcher
can be killed at any time, and another one goes on.

Here, a job is a model, and at most `jobs` run at once. On Slurm a model's training is a job, over
all nodes asked for; then each of its samplings is drawn by `parts` jobs of one node; then one
evaluates it. Jobs of a kind are submitted as an array.
"""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import submitit

from cfg_jax import papers
from cfg_jax.core.errors import UserError
from cfg_jax.report import page as report
from cfg_jax.sweep import jobs
from cfg_jax.sweep import status as board
from cfg_jax.sweep.grid import Run
from cfg_jax.sweep.jobs import Job

ROOT = Path(__file__).parents[1]
MAX_REQUEUES = 1000  # of a job whose time was up: it goes on from its checkpoint each time


class Here:
  """Jobs on this machine: processes that outlive the launcher.

  submitit's local executor starts all at once, so the launcher queues. Its timeout is put off for
  ever. It keeps the launcher's terminal and streams, so they are taken from it at the start.
  """

  poll_seconds, grace_seconds = 0.5, 0.0

  def __init__(self, workdir: Path, limit: int):
    """limit: how many jobs run at once."""
    self.limit = limit
    self._workdir, self._own = workdir, {}

  def todo(self, run: Run, look: board.Look) -> list[Job]:
    """All of a model is one job."""
    devices = os.environ.get('CUDA_VISIBLE_DEVICES')
    return [] if look.done else [Job(self._workdir, run, cuda_devices=devices)]

  def running(self, todo: list[Job]) -> set[str]:
    """The names of those that run, whoever started them."""
    own = {name for name, job in self._own.items() if job.state == 'RUNNING'}
    return own | {job.name for job in todo if jobs.held(job.lock)}

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
      if job.name not in own and (pid := jobs.holder(job.lock)):
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


class Slurm:
  """Jobs in Slurm's queue, which does the queueing.

  options: of sbatch, by submitit's names: nodes, gpus_per_node, partition, ….
  """

  poll_seconds, grace_seconds, limit = 5.0, 20.0, 10**6

  def __init__(self, workdir: Path, options: dict, parts: int):
    """parts: how many jobs draw a sampling. Raises ValueError where there is no Slurm."""
    if not shutil.which('sbatch'):
      raise UserError('--cluster=slurm finds no Slurm: sbatch is not on PATH. Use a login node.')
    self._workdir, self._parts, self._ids = workdir, parts, _recorded(workdir)
    self._options = {f'slurm_{k}': v for k, v in options.items() if v is not None}

  def todo(self, run: Run, look: board.Look) -> list[Job]:
    """The jobs of the run's next stage."""
    if not look.trained:
      return [Job(self._workdir, run, 'train')]
    if look.images < look.num_images:
      parts = [
        Job(self._workdir, run, 'generate', i, (k, self._parts))
        for i in range(len(run.samplings))
        for k in range(self._parts)
      ]
      return [job for job in parts if self._draws(job)]
    return [] if look.done else [Job(self._workdir, run, 'evaluate')]

  def _draws(self, job):
    sampling = job.run.samplings[job.sampling]
    indices = job.part_of(sampling.config.sample.num_samples)
    return board.missing(self._workdir / job.run.name, sampling, indices)

  def running(self, todo: list[Job]) -> set[str]:
    """The names of those that are in Slurm's queue, or else work."""
    working = {j.name for j in todo if j.stage != 'generate' and jobs.held(j.lock)}
    if not any(job.name in self._ids for job in todo):
      return working
    listed = subprocess.run(
      ['squeue', '--noheader', '--array', '--format=%i', f'--user={os.getuid()}'],
      capture_output=True,
      text=True,
    )
    if listed.returncode:  # Slurm's controller is away for a while: believe what was
      return {job.name for job in todo if job.name in self._ids}
    queued = set(listed.stdout.split())
    return working | {job.name for job in todo if self._ids.get(job.name) in queued}

  def submit(self, new: list[Job], logs: Path) -> list[str]:
    """Submits an array for each stage; returns their ids. ValueError where Slurm declines."""
    for stage in dict.fromkeys(job.stage for job in new):
      array = [job for job in new if job.stage == stage]
      executor = submitit.AutoExecutor(logs, cluster='slurm', slurm_max_num_timeout=MAX_REQUEUES)
      options = self._options | (
        {} if stage == 'train' else {'slurm_nodes': 1, 'slurm_tasks_per_node': 1}
      )
      executor.update_parameters(
        **options,
        name=f'{self._workdir.name}-{stage}',
        stderr_to_stdout=True,
        slurm_signal_delay_s=120,  # before the time is up: to save a checkpoint
        slurm_srun_args=['--kill-on-bad-exit=1'],  # processes that train as one end as one
      )
      try:
        with executor.batch():
          submitted = [executor.submit(job) for job in array]
      except submitit.core.utils.FailedJobError as error:
        words = str(error).strip().splitlines()
        raise UserError(f'Slurm did not take a job: {words[-1] if words else error}') from None
      self._ids |= {job.name: s.job_id for job, s in zip(array, submitted)}
    return [self._ids[job.name] for job in new]

  def stop(self, todo: list[Job]) -> None:
    """Leaves them be."""
    ids = sorted({self._ids[name].split('_')[0] for name in self.running(todo)})
    if ids:
      print(f'Slurm goes on with {", ".join(ids)}; to end them: scancel {" ".join(ids)}')


def _recorded(workdir: Path) -> dict[str, str]:
  """The newest id of each job that was ever submitted to Slurm."""
  return {r['job']: r['id'] for r in _records(workdir) if r['cluster'] == 'Slurm'}


def _records(workdir: Path) -> list[dict]:
  return board.json_lines(workdir / 'jobs' / 'jobs.jsonl')


def _record(workdir: Path, new: list[Job], ids: list[str], logs: Path, cluster: str) -> None:
  with (workdir / 'jobs' / 'jobs.jsonl').open('a') as file:
    for job, job_id in zip(new, ids):
      log = f'{logs.name}/{job_id}_0_log.out'
      line = {'job': job.name, 'id': job_id, 'cluster': cluster, 'log': log}
      file.write(json.dumps(line | {'time': time.strftime('%Y-%m-%d %H:%M:%S')}) + '\n')


def failures(workdir: Path, run: Run) -> list[Path]:
  """The marks of the run's jobs that failed by an error of their own, each called by its job."""
  return sorted((workdir / 'jobs' / run.name).glob('*.failed'))


def last_words(workdir: Path, name: str, count: int = 8) -> str:
  """The last lines of a job's newest log, under its path."""
  logs = [r['log'] for r in _records(workdir) if r['job'] == name]
  if not logs:
    return '  (no log)'
  path = workdir / 'jobs' / logs[-1]
  lines = path.read_text(errors='replace').splitlines() if path.exists() else []
  return '\n'.join(f'  {line}' for line in [f'{path}:', *lines[-count:]])


def launch(workdir: Path, runs: list[Run], cluster: Here | Slurm) -> list[str]:
  """Brings every run to its end, and the report with them; returns the names of jobs that did not.

  A job is tried once; one that failed before, by an error of its own, is not tried. SIGTERM and
  SIGINT stop what runs here, with its work saved, and raise SystemExit.
  """
  # A job finds `experiments` wherever it is started.
  path = [str(ROOT), os.environ.get('PYTHONPATH')]
  os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, path))
  told = []
  for s in (signal.SIGTERM, signal.SIGINT):
    signal.signal(s, lambda signum, frame: told.append(signal.Signals(signum)))
  shown, looks = board.Board(), {}
  tried, seen, reported = set(), {}, None

  def look() -> list[Job]:
    for run in runs:
      if run.name not in looks or not looks[run.name].done:
        looks[run.name] = board.look(workdir, run)
    return [job for run in runs for job in cluster.todo(run, looks[run.name])]

  todo = look()
  while True:
    now = time.monotonic()
    seen |= dict.fromkeys(cluster.running(todo), now)
    todo = look()  # in this order: what ended in between has left its results
    live = {j.name for j in todo if now - seen.get(j.name, -math.inf) <= cluster.grace_seconds}
    waiting = [j for j in todo if j.name not in tried | live and not j.failure.exists()]
    if new := waiting[: max(0, cluster.limit - len(live))]:
      logs = workdir / 'jobs' / f'{time.strftime("%Y%m%d-%H%M%S")}-{os.getpid()}-{len(tried)}'
      _record(workdir, new, cluster.submit(new, logs), logs, type(cluster).__name__)
      live |= {job.name for job in new}
      seen |= dict.fromkeys(live, now)
    tried |= live
    shown.show([(run.name, looks[run.name], _state(run, looks, todo, live, tried)) for run in runs])
    done = sum(look.done for look in looks.values()) if live else math.inf
    if done != reported and any(look.cells for look in looks.values()):
      report.write_report(workdir, papers.DEFAULT.study)
      reported = done
    if not live:
      return [job.name for job in todo]
    until = now + cluster.poll_seconds
    while not told and time.monotonic() < until:
      time.sleep(0.1)
    if told:
      signal.signal(told[0], signal.SIG_DFL)  # told again, the launcher goes at once
      print(f'{told[0].name}: started again with the same command, the sweep goes on.', flush=True)
      cluster.stop(todo)
      raise SystemExit(128 + told[0])


def _state(
  run: Run, looks: dict[str, board.Look], todo: list[Job], live: set[str], tried: set[str]
) -> str:
  """One word on a run."""
  own = [job for job in todo if job.run.name == run.name]
  if looks[run.name].done:
    return 'done'
  if any(job.name in live for job in own):
    return 'running'
  if any(job.failure.exists() for job in own):
    return 'failed'
  return 'stopped' if any(job.name in tried for job in own) else 'waiting'
