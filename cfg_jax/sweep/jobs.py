"""What a sweep's jobs do, in processes of their own: train a model, sample and evaluate it.

A job holds a lock on its model while it works. The system lets go of it however the job ends, so
whoever starts a sweep again sees what is still at work, and no model is worked on twice.
"""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import submitit

from cfg_jax.core import failures, processes, runtime
from cfg_jax.core.locks import claim
from cfg_jax.evaluate import held_out
from cfg_jax.evaluate.extractors.weights import NotAtHand
from cfg_jax.evaluate.runs import evaluate
from cfg_jax.generate.draw import generate
from cfg_jax.plan import cost
from cfg_jax.sweep.grid import Run
from cfg_jax.train.loop import train


@dataclasses.dataclass(frozen=True)
class Job:
  """All of a model's work, or one stage of it: 'train', 'generate' or 'evaluate'.

  'generate' draws the part k of n of each set of run.samplings[sampling]; 'evaluate' takes in all
  samplings, and draws what may be missing. It is picklable, which is how submitit starts it.
  """

  workdir: Path
  run: Run
  stage: str = 'all'
  sampling: int = 0
  part: tuple[int, int] = (0, 1)
  cuda_devices: str | None = None

  @property
  def label(self) -> str:
    """Its name among the jobs of a model."""
    k, n = self.part
    return f'generate-{self.sampling}-{k}of{n}' if self.stage == 'generate' else self.stage

  @property
  def name(self) -> str:
    """Its name among the jobs of a sweep."""
    return f'{self.run.name}/{self.label}'

  @property
  def failure(self) -> Path:
    """A file that is there once the job has failed by an error of its own."""
    return self.workdir / 'jobs' / self.run.name / f'{self.label}.failed'

  @property
  def lock(self) -> Path:
    """The lock on the model."""
    return self.workdir / 'jobs' / self.run.name / 'lock'

  def part_of(self, num_samples: int) -> range:
    """The indices of a set that this job draws."""
    k, n = self.part
    return range(k * num_samples // n, (k + 1) * num_samples // n)

  def checkpoint(self) -> submitit.helpers.DelayedSubmission:
    """What submitit requeues: the same job, which goes on from what is on disk."""
    return submitit.helpers.DelayedSubmission(self)

  def __call__(self) -> None:
    """Does it. SIGTERM ends it with its work saved; so does USR2, and Slurm starts it again."""
    environment = submitit.JobEnvironment()
    on_slurm = environment.cluster == 'slurm'
    if not on_slurm:
      os.setsid()  # a terminal's Ctrl-C is for the launcher, which sends SIGTERM
      _set_cuda_devices(self.cuda_devices)
    requeue, time_is_up = signal.getsignal(signal.SIGUSR2), []

    def end_and_requeue(signum, frame):
      time_is_up.append(signum)
      signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGUSR2, end_and_requeue)
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    try:
      self._work_alone(environment)
    except SystemExit:
      if not on_slurm:
        raise
      # A cancelled or preempted job is killed soon, and one that ended before is not requeued.
      signal.signal(signal.SIGTERM, signal.SIG_IGN)
      signal.signal(signal.SIGUSR2, requeue)
      if time_is_up:
        requeue(signal.SIGUSR2, None)  # ends the first of the job's processes, and so all of them
      time.sleep(600)
      raise

  def _work_alone(self, environment):
    """Works under the lock; the first of a job's processes holds it for all."""
    if environment.global_rank > 0:
      self._work(environment)
      return
    with claim(self.lock, shared=self.stage == 'generate') as claimed:
      if not claimed:
        print(f'{self.run.name} is being worked on by another job; this one has nothing to do.')
        return
      try:
        self._work(environment)
      except Exception as error:
        told = failures.told(error)
        if told is None or told.code == 2:  # else it is the system's, and is tried again
          self.failure.write_text(f'{error}\n')
        if told is None:
          raise
        print(told.line, flush=True)
        sys.exit(told.code)

  def _work(self, environment):
    failures.hush_libraries()
    config, folder = self.run.config, self.workdir / self.run.name
    batch_sizes = {s.config.sample.batch_size for s in self.run.samplings}
    if self.stage == 'train':
      batch_sizes = set()
    if environment.num_tasks > 1:
      processes.start()
    runtime.setup_jax(config.train.batch_size, *batch_sizes, channels=config.model.channels)
    if self.stage in ('all', 'train'):
      train(config, folder, cost.peak_images_per_s(config))
    if self.stage == 'generate':
      sampling = self.run.samplings[self.sampling]
      indices = self.part_of(sampling.config.sample.num_samples)
      generate(sampling.config, folder, sampling.step, indices)
    if self.stage in ('all', 'evaluate'):
      missing = None
      for sampling in self.run.samplings:
        generate(sampling.config, folder, sampling.step)
        try:
          evaluate(sampling.config, folder, sampling.step)
        except NotAtHand as error:
          missing = error
      held_out.score_kept(sampling.config, folder, sampling.step)
      if missing:  # all is drawn, and the report shows it
        raise missing


def _set_cuda_devices(devices):
  """Undoes submitit, whose local jobs see no GPU unless they are counted for it."""
  if devices is None:
    os.environ.pop('CUDA_VISIBLE_DEVICES', None)
  else:
    os.environ['CUDA_VISIBLE_DEVICES'] = devices
