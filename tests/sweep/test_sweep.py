"""Sweeps as a user runs them: wrong ones told in one line, killed ones ended all the same."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cfg_jax import papers
from cfg_jax.core import locks
from cfg_jax.core.checkpoint import steps_on_disk
from cfg_jax.generate.store import sample_sets
from cfg_jax.plan import cost, devices
from cfg_jax.report import cells
from cfg_jax.sweep import __main__ as sweep
from cfg_jax.sweep import grid, jobs, records, status
from tests.conftest import ROOT, command, run, tiny_flags

W = tuple(4 * i / 10 for i in range(11))


def test_a_status_counts_what_is_left(tiny, tmp_path):
  [model] = grid.runs_of(tiny, {'method.p_uncond': [0.1], 'sample.sampler.num_steps': [4, 8]})
  found = status.read(tmp_path, model)
  assert not found.done and not found.trained and (found.step, found.num_steps) == (0, 12)
  assert (found.num_images, found.num_cells) == (2 * 2 * 20, 4)
  assert found.calls == 20 * (1 + 2) * (4 + 8)  # w = 0 takes one call a step, w = 1 two

  folder = tmp_path / model.name
  (folder / 'checkpoints' / '12').mkdir(parents=True)
  (folder / 'config.json').touch()
  for sampling in model.samplings:
    for sample_set in sample_sets(sampling.config.sample, sampling.step):
      sample_set.write(folder, 5, np.zeros((15, 8, 8, 1), np.uint8), np.zeros(15, np.int32))
  found = status.read(tmp_path, model)
  assert found.trained and not found.done and found.images == 2 * 2 * 15
  assert found.calls == 5 * (1 + 2) * (4 + 8)
  first, second = (jobs.Job(tmp_path, model, 'generate', 1, (k, 2)) for k in (0, 1))
  assert status.missing(folder, model.samplings[1], first.part_of(20))
  assert not status.missing(folder, model.samplings[1], second.part_of(20))


def test_a_run_that_has_logged_the_step_it_compiled_alone_has_no_time_left_yet(tiny, tmp_path):
  [model] = grid.runs_of(tiny, {'method.p_uncond': [0.1]})
  log = tmp_path / model.name / 'metrics.jsonl'
  log.parent.mkdir(parents=True)
  for rate, note in (('', 'loss 1.000'), (', "images_per_s": 8.0', 'loss 1.000, 22 s left')):
    log.write_text(f'{{"step": 1, "loss": 1.0{rate}}}\n')
    found = status.read(tmp_path, model)
    assert (found.step, found.note) == (1, note)


STATUS = status.Status(3, 12, 'loss 1', False, 0, 40, 160, 0, 2)


def test_a_terminal_shows_one_live_table(monkeypatch, capsys):
  monkeypatch.setattr('sys.stdout.isatty', lambda: True)
  monkeypatch.setenv('COLUMNS', '48')
  shown = status.Board()
  for step in (3, 4):
    shown.show([('a', STATUS._replace(step=step), 'running'), ('b' * 40, STATUS, 'waiting')])
  first, second = capsys.readouterr().out.split('\x1b[3A')  # up to where the table began
  for text, step in ((first, '3/12'), (second, '4/12')):
    head, a, b = (line.removeprefix('\r\x1b[K') for line in text.rstrip().split('\n'))
    assert head.startswith('model') and a.split()[:2] == ['a', step] and b.startswith('bbb')
    assert max(map(len, (head, a, b))) < 48  # none wraps


def test_elsewhere_a_line_is_told_once_and_when_something_is_new(capsys):
  shown = status.Board(seconds=1000)
  for found, state in (
    (STATUS, 'waiting'),
    (STATUS, 'running'),
    (STATUS._replace(step=4), 'running'),
  ):
    shown.show([('a', found, state)])
  assert capsys.readouterr().out.splitlines() == [
    'a: step 3/12, images 0/40, evaluated 0/2: waiting',
    'a: step 3/12, images 0/40, evaluated 0/2: running, loss 1',
  ]


def test_the_dry_run_says_what_it_costs_and_does_nothing(tiny, tmp_path, capsys):
  runs = grid.runs_of(tiny, {'method.p_uncond': [0.1, 0.5]})
  sweep.show_cost(tmp_path, runs, devices.DEVICES['h100'], 8, 0.4)
  head, first, second, last = capsys.readouterr().out.splitlines()[1:]
  assert head.split() == ['model', 'steps', 'images', 'cells', 'PFLOP', 'hours']
  assert first.split()[:4] == ['p_uncond=0.1', '12', '40', '2']
  assert first.split()[1:] == second.split()[1:]
  flops = cost.image_flops(tiny)
  work = 12 * 16 * flops.train.compiler + 20 * (1 + 2) * 4 * flops.forward.compiler
  hours = work / (8 * devices.DEVICES['h100'].peak_flops('float32') * 0.4 * 3600)
  np.testing.assert_allclose([float(x) for x in first.split()[4:]], [work / 1e15, hours], 1e-2)
  assert '8 × H100' in last or '8 × NVIDIA H100' in last
  assert not list(tmp_path.iterdir())


def test_what_is_wrong_is_one_line_and_nothing_is_lost(tmp_path, data_dir):
  """Through the command; test_grid has the rest of what a grid can do wrong."""
  workdir = tmp_path / 'sweep'
  for flags, says in (
    (['--cluster=slurm'], 'sbatch is not on PATH'),
    (['--grid=sample.guidance.w=0,x'], "'x' is not a number"),
  ):
    done = run('cfg_jax.sweep', *tiny_flags(workdir, data_dir), *flags, PATH=str(tmp_path))
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not workdir.exists()


def test_an_option_that_slurm_does_not_have_is_told(tmp_path, data_dir, call):
  flags = ('--cluster=slurm', '--slurm.partitoin=gpu')
  done = call(sweep, *tiny_flags(tmp_path / 'sweep', data_dir), *flags)
  assert done.returncode == 2 and 'Did you mean partition?' in done.stderr
  assert not (tmp_path / 'sweep').exists()


def test_a_recorded_sweep_is_changed_by_set_where_it_may_be(tiny, tmp_path, call):
  grid.write(tmp_path, tiny, [{'method.p_uncond': [0.1]}])
  recorded = ('--workdir', tmp_path, '--dry_run')
  done = call(sweep, *recorded, '--set', 'sample.num_samples=30')
  assert done.returncode == 0 and done.stdout.splitlines()[2].split()[:3] == [
    'p_uncond=0.1',
    '12',
    '60',
  ]
  done = call(sweep, *recorded, '--set', 'train.learning_rate=0.1')
  assert done.returncode == 2 and 'train.learning_rate: 0.002 → 0.1' in done.stderr


def submissions(workdir):
  """How often each job was started."""
  lines = (workdir / 'jobs' / 'jobs.jsonl').read_text().splitlines()
  return collections.Counter(json.loads(line)['job'] for line in lines)


def wait_until(true, seconds=300):
  deadline = time.monotonic() + seconds
  while not (value := true()):
    assert time.monotonic() < deadline
    time.sleep(0.1)
  return value


@pytest.mark.slow
def test_a_sweep_killed_twice_at_random_ends_with_the_same_report(tmp_path, data_dir):
  """kill −9 on the launcher, then on a worker: 3 models and 11 w each, as if nothing had been."""
  changes = {'sample.guidance.w': W, 'sample.sampler.num_steps': 2, 'sample.num_samples': 16}
  changes['sample.batch_size'] = 320
  straight, killed = tmp_path / 'straight', tmp_path / 'killed'

  def start(workdir):
    grid = '--grid=method.p_uncond=0.1,0.2,0.5'
    return command('cfg_jax.sweep', *tiny_flags(workdir, data_dir, **changes), grid)

  claims = [killed / 'jobs' / f'p_uncond={p}' / 'lock' for p in (0.1, 0.2, 0.5)]
  launcher = start(killed)
  wait_until(lambda: any(map(locks.holder, claims)))
  time.sleep(random.uniform(0, 5))
  launcher.kill()
  launcher.communicate()
  at_work = [lock for lock in claims if locks.held(lock)]
  drawn = {p: p.stat().st_mtime_ns for p in killed.glob('*/samples/**/*.npz')}

  launcher = start(killed)
  if at_work:  # its worker outlived it, and is waited for
    assert at_work == claims[:1]
    wait_until(lambda: not locks.held(claims[0]))
    assert submissions(killed)['p_uncond=0.1/all'] == 1
  wait_until(lambda: locks.holder(claims[1]))
  time.sleep(random.uniform(0, 5))
  name, worker = next(
    (f'{lock.parent.name}/all', pid) for lock in claims if (pid := locks.holder(lock))
  )
  os.kill(worker, signal.SIGKILL)
  out, err = launcher.communicate(timeout=500)
  assert launcher.returncode == 1 and f'{name} did not come to its end' in err, (out, err)

  launcher = start(killed)
  out, err = launcher.communicate(timeout=500)
  assert launcher.returncode == 0, (out, err)
  expected = {f'p_uncond={p}/all': 1 for p in (0.1, 0.2, 0.5)}
  assert submissions(killed) == expected | {name: 2}
  assert {p: p.stat().st_mtime_ns for p in drawn} == drawn  # nothing was drawn again
  for lock in claims:
    assert (killed / lock.parent.name / 'evals.jsonl').read_text().count('\n') == len(W)

  launcher = start(straight)
  out, err = launcher.communicate(timeout=500)
  assert launcher.returncode == 0, (out, err)
  csv = [(workdir / 'report.csv').read_bytes() for workdir in (straight, killed)]
  assert csv[0] == csv[1] and csv[0].count(b'\n') == 1 + 3 * len(W)
  axis = papers.DEFAULT.study.axis
  assert [c[axis] for c in cells.read(killed, axis).cells[: len(W)]] == list(W)


@pytest.mark.slow
def test_failed_cells_are_named_and_tried_again_on_request_only(tmp_path, data_dir):
  def start(*flags):
    axis = '--grid=model.channels=8,16384'  # which no machine has memory for
    return run('cfg_jax.sweep', *tiny_flags(tmp_path / 'sweep', data_dir), axis, *flags)

  bad = 'p_uncond=0.1,model.channels=16384/all'
  for flags, count in ((), 1), ((), 1), (('--retry',), 2):
    done = start(*flags)
    assert done.returncode == 1, done.stderr
    assert f'{bad} did not come to its end' in done.stderr
    assert "model.channels=16384: the network's arrays take" in done.stderr
    assert 'use fewer channels' in done.stderr
    assert submissions(tmp_path / 'sweep') == {
      'p_uncond=0.1,model.channels=8/all': 1,
      bad: count,
    }
  done = run('cfg_jax.sweep', '--workdir', str(tmp_path / 'sweep'), '--status')
  lines = done.stdout.splitlines()
  assert lines[0].endswith(': done') and lines[1].endswith(': failed')
  assert 'use fewer channels' in done.stdout


@pytest.mark.slow
def test_ctrl_c_saves_and_goes_on(tmp_path, data_dir):
  """SIGINT to the terminal's whole group, as Ctrl-C sends it: the worker saves and ends first."""
  workdir = tmp_path / 'sweep'
  changes = {'train.num_steps': 2000, 'train.checkpoint_every': 9999}
  argv = [*tiny_flags(workdir, data_dir, **changes), '--grid=method.p_uncond=0.1']
  process = subprocess.Popen(
    [sys.executable, '-m', 'cfg_jax.sweep', *argv], cwd=ROOT, start_new_session=True
  )
  metrics = workdir / 'p_uncond=0.1' / 'metrics.jsonl'
  wait_until(lambda: metrics.exists() and metrics.read_text())
  os.killpg(process.pid, signal.SIGINT)
  assert process.wait(timeout=200) == 130
  assert not locks.held(workdir / 'jobs' / 'p_uncond=0.1' / 'lock')
  [saved] = steps_on_disk(workdir / 'p_uncond=0.1')
  assert 0 < saved < 2000
  done = run('cfg_jax.sweep', *argv)
  assert done.returncode == 0, done.stderr
  steps = [json.loads(line)['step'] for line in metrics.read_text().splitlines()]
  assert steps == sorted(set(steps)) and steps[-1] == 2000
  log = records.last_words(workdir, 'p_uncond=0.1/all')
  assert 'Traceback' not in log
