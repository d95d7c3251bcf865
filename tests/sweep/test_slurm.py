"""Sweeps on a real Slurm of one node (see .ci/slurm).

Without a Slurm these tests are skipped, except in CI, where they must run.
"""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from cfg_jax.core.checkpoint import steps_on_disk
from tests.conftest import command, run, tiny_flags
from tests.sweep.test_sweep import submissions, wait_until

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not (shutil.which('sbatch') and os.environ.get('SLURM_CONF')) and not os.environ.get('CI'),
    reason='needs a Slurm: see .ci/slurm',
  ),
]
SLURM = ('--cluster=slurm', '--slurm.partition=low', '--slurm.timeout_min=10')


def slurm(*argv):
  return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def losses(folder):
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return [line['step'] for line in lines], np.array([line['loss'] for line in lines])


@pytest.fixture(scope='module')
def local(tmp_path_factory, data_dir):
  """The sweep as the local engine does it."""
  workdir = tmp_path_factory.mktemp('local') / 'sweep'
  done = run('cfg_jax.sweep', *tiny_flags(workdir, data_dir), '--grid=method.p_uncond=0.1,0.5')
  assert done.returncode == 0, done.stderr
  return workdir


def test_a_sweep_gives_the_numbers_of_the_local_engine(local, tmp_path, data_dir):
  """Array jobs: one training a model, two that share its samples, one that evaluates."""
  workdir = tmp_path / 'sweep'
  argv = [*tiny_flags(workdir, data_dir), '--grid=method.p_uncond=0.1,0.5', *SLURM, '--parts=2']
  done = run('cfg_jax.sweep', *argv)
  assert done.returncode == 0, done.stderr
  assert (workdir / 'report.csv').read_bytes() == (local / 'report.csv').read_bytes()
  stages = ('train', 'generate-0-0of2', 'generate-0-1of2', 'evaluate')
  expected = {f'p_uncond={p}/{stage}': 1 for p in (0.1, 0.5) for stage in stages}
  assert submissions(workdir) == expected
  records = (workdir / 'jobs' / 'jobs.jsonl').read_text().splitlines()
  ids = [json.loads(line)['id'] for line in records if '/train' in line]
  assert [i.partition('_')[2] for i in ids] == ['0', '1'] and len({i[:-1] for i in ids}) == 1
  done = run('cfg_jax.sweep', *argv)  # nothing is left to do
  assert done.returncode == 0 and submissions(workdir) == expected


def test_a_job_that_slurm_declines_is_one_line(tmp_path, data_dir):
  flags = ('--cluster=slurm', '--slurm.partition=nowhere')
  done = run('cfg_jax.sweep', *tiny_flags(tmp_path, data_dir), *flags)
  assert done.returncode == 2 and 'invalid partition' in done.stderr, done.stderr
  assert 'Traceback' not in done.stderr


def test_a_training_job_of_two_processes(local, tmp_path, data_dir):
  workdir = tmp_path / 'sweep'
  axis = '--grid=method.p_uncond=0.1'
  two = ('--slurm.tasks_per_node=2', '--slurm.cpus_per_task=1')
  done = run('cfg_jax.sweep', *tiny_flags(workdir, data_dir), axis, *SLURM, *two)
  assert done.returncode == 0, done.stderr
  (steps, ours), (_, theirs) = (losses(w / 'p_uncond=0.1') for w in (workdir, local))
  np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  assert steps[-1] == 12
  logs = [p.read_text() for p in workdir.glob('jobs/*/*_log.out') if 'train' in p.read_text()]
  assert any('local_rank=1(2)' in log for log in logs)
  assert (workdir / 'report.csv').read_text().count('\n') == 1 + 2


def test_a_job_preempted_and_out_of_time_ends_after_requeues(tmp_path, data_dir):
  """USR2, which Slurm sends before the time is up, then jobs that preempt it: saved and resumed."""
  workdir = tmp_path / 'sweep'
  run_folder = workdir / 'p_uncond=0.1'
  changes = {'train.num_steps': 3000, 'train.checkpoint_every': 10**6, 'train.log_every': 50}
  argv = [*tiny_flags(workdir, data_dir, **changes), '--grid=method.p_uncond=0.1', *SLURM]
  launcher = command('cfg_jax.sweep', *argv)

  def step():
    path = run_folder / 'metrics.jsonl'
    return losses(run_folder)[0][-1] if path.exists() and path.read_text() else 0

  wait_until(lambda: step() >= 100)
  [job] = slurm('squeue', '--noheader', '--format=%i').split()
  slurm('scancel', '--signal=USR2', job)
  [first] = wait_until(lambda: steps_on_disk(run_folder))
  assert 100 <= first < 3000
  wait_until(lambda: step() > first)
  slurm('srun', '--partition=high', '--ntasks=2', 'true')
  second = max(wait_until(lambda: set(steps_on_disk(run_folder)) - {first}))
  assert first < second < 3000
  out, err = launcher.communicate(timeout=500)
  assert launcher.returncode == 0, (out, err)
  [log] = [p.read_text() for p in workdir.glob('jobs/*/*_log.out') if 'steps' in p.read_text()]
  assert log.count('Starting with JobEnvironment') == 3
  assert f'Stopped by SIGTERM: step {first} is saved' in log
  assert f'Stopped by SIGTERM: step {second} is saved' in log
  assert submissions(workdir)['p_uncond=0.1/train'] == 1
  steps, values = losses(run_folder)
  assert steps == sorted(set(steps)) and steps[-1] == 3000 and values[-1] < values[0]
