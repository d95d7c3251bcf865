"""Jobs in Slurm's queue.

A model's training is a job, over all nodes asked for; then each of its samplings is drawn by
`parts` jobs of one node; then one evaluates it. Jobs of a kind are submitted as an array.
"""

import os
import shutil
import subprocess
from pathlib import Path

import submitit

from cfg_jax.core import locks
from cfg_jax.core.errors import UserError
from cfg_jax.sweep import records
from cfg_jax.sweep.grid import Run
from cfg_jax.sweep.jobs import Job
from cfg_jax.sweep.status import Status, missing

MAX_REQUEUES = 1000  # of a job whose time was up: it goes on from its checkpoint each time


class Slurm:
  """Jobs in Slurm's queue, which does the queueing.

  options: of sbatch, by submitit's names: nodes, gpus_per_node, partition, ….
  """

  name, poll_seconds, grace_seconds, limit = 'slurm', 5.0, 20.0, 10**6

  def __init__(self, workdir: Path, options: dict, parts: int):
    """parts: how many jobs draw a sampling. Raises ValueError where there is no Slurm."""
    if not shutil.which('sbatch'):
      raise UserError('--cluster=slurm finds no Slurm: sbatch is not on PATH. Use a login node.')
    self._workdir, self._parts, self._ids = workdir, parts, records.submitted(workdir)
    self._options = {f'slurm_{k}': v for k, v in options.items() if v is not None}

  def todo(self, run: Run, status: Status) -> list[Job]:
    """The jobs of the run's next stage."""
    if not status.trained:
      return [Job(self._workdir, run, 'train')]
    if status.images < status.num_images:
      parts = [
        Job(self._workdir, run, 'generate', i, (k, self._parts))
        for i in range(len(run.samplings))
        for k in range(self._parts)
      ]
      return [job for job in parts if self._draws(job)]
    return [] if status.done else [Job(self._workdir, run, 'evaluate')]

  def _draws(self, job):
    sampling = job.run.samplings[job.sampling]
    indices = job.part_of(sampling.config.sample.num_samples)
    return missing(self._workdir / job.run.name, sampling, indices)

  def running(self, todo: list[Job]) -> set[str]:
    """The names of those that are in Slurm's queue, or else work."""
    working = {j.name for j in todo if j.stage != 'generate' and locks.held(j.lock)}
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
