"""Which jobs a sweep has started, where their logs are, and which of them failed."""

import time
from pathlib import Path

from cfg_jax.core import files
from cfg_jax.sweep.grid import Run
from cfg_jax.sweep.jobs import Job


def submitted(workdir: Path) -> dict[str, str]:
  """The newest id of each job that was ever submitted to Slurm."""
  return {r['job']: r['id'] for r in _records(workdir) if r['cluster'].lower() == 'slurm'}


def _records(workdir: Path) -> list[dict]:
  """What is noted of jobs; damaged lines decide nothing, and are passed over."""
  lines, _ = files.read_log(workdir / 'jobs' / 'jobs.jsonl')
  return [
    r for r in lines if all(isinstance(r.get(k), str) for k in ('job', 'id', 'cluster', 'log'))
  ]


def record(workdir: Path, new: list[Job], ids: list[str], logs: Path, cluster: str) -> None:
  """Notes jobs that were started: their ids in the cluster, by its name, and their folder."""
  with (workdir / 'jobs' / 'jobs.jsonl').open('a') as file:
    for job, job_id in zip(new, ids):
      log = f'{logs.name}/{job_id}_0_log.out'
      line = {'job': job.name, 'id': job_id, 'cluster': cluster, 'log': log}
      line['time'] = time.strftime('%Y-%m-%d %H:%M:%S')
      file.write(files.json_lines([line]))


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
