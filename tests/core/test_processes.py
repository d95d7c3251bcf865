"""Several processes train as one: the same curve, one log, one checkpoint, one stop."""

import re
import shutil
import signal
import socket

import jax
import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core import processes
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.data import batches as data
from cfg_jax.data import registry as datasets
from cfg_jax.generate import draw as generate
from cfg_jax.generate.store import sample_sets
from tests.conftest import command, run, tiny_flags
from tests.generate.test_draw import images_of
from tests.train.test_resume import logged, wait_for

# With dropout and flips, so that the test sees all that is random.
CHANGES = {'model.dropout': 0.1, 'data.flip': True, 'train.log_every': 1}


def start_all(*argv: str, num_processes: int = 2, devices: int = 2) -> list:
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  return [
    command(
      *argv,
      f'--distributed.coordinator=localhost:{port}',
      f'--distributed.num_processes={num_processes}',
      f'--distributed.process_id={i}',
      JAX_NUM_CPU_DEVICES=str(devices),
    )
    for i in range(num_processes)
  ]


def run_all(*argv: str, **kwargs) -> list[tuple[int, str, str]]:
  """(exit status, stdout, stderr) of each process."""
  return ends_of(start_all(*argv, **kwargs))


def ends_of(started: list) -> list[tuple[int, str, str]]:
  """Waits for all; none outlives the test."""
  try:
    ends = [(*p.communicate(timeout=600), p.returncode) for p in started]
  finally:
    for process in started:
      process.kill()
  return [(status, without_gloo(out), err) for out, err, status in ends]


def without_gloo(out: str) -> str:
  """Gloo joins CPUs and says so on stdout, from several threads: its lines may be in pieces."""
  pieces = r'\[Gloo\] Rank |\d+ is connected to |\d+ peer ranks\. |Expected number .* is : \d+'
  return ''.join(line for line in re.sub(pieces, '', out).splitlines(True) if line.strip())


def test_gloos_lines_are_left_out_even_in_pieces():
  whole = '[Gloo] Rank 3 is connected to 3 peer ranks. Expected number of peer ranks is : 3\n'
  mixed = f'[Gloo] Rank {whole}2 is connected to 3 peer ranks. Expected number of ranks is : 3\n'
  assert without_gloo(f'{whole}Saved\n{mixed}\n') == 'Saved\n'


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """The work directory of two processes with two devices each, that prepared their data too."""
  workdir = tmp_path_factory.mktemp('two')
  outcome = run_all('cfg_jax.train', *tiny_flags(workdir, workdir / 'data', **CHANGES))
  assert [status for status, *_ in outcome] == [0, 0], outcome
  assert 'Preparing the digits' in outcome[0][1] and '12/12 steps' in outcome[0][1]
  assert outcome[1][1] == ''
  return workdir


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one_which_can_go_on(two, tmp_path):
  straight, resumed = tmp_path / 'straight', tmp_path / 'resumed'
  shutil.copytree(two, resumed)
  assert Checkpoints(two).steps() == [8, 12]
  for workdir, devices in ((straight, '4'), (resumed, '1')):
    flags = tiny_flags(workdir, two / 'data', **CHANGES | {'train.num_steps': 18})
    done = run('cfg_jax.train', *flags, JAX_NUM_CPU_DEVICES=devices)
    assert done.returncode == 0, done.stderr
  curves = [[line['loss'] for line in logged(w)] for w in (straight, two, resumed)]
  assert [line['step'] for line in logged(two)] == list(range(1, 13))
  assert [line['step'] for line in logged(resumed)] == list(range(1, 19))
  np.testing.assert_allclose(curves[1], curves[0][:12], rtol=1e-5)
  np.testing.assert_allclose(curves[2], curves[0], rtol=1e-5)
  assert np.ptp(curves[0]) > 0.01  # a curve, not a constant


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_after_the_same_step(two, tmp_path):
  changes = CHANGES | {'train.num_steps': 100_000, 'train.checkpoint_every': 100_000}
  both = start_all('cfg_jax.train', *tiny_flags(tmp_path, two / 'data', **changes))
  wait_for(lambda: (tmp_path / 'metrics.jsonl').exists() and logged(tmp_path), both[0])
  both[1].send_signal(signal.SIGTERM)
  outcome = ends_of(both)
  assert [status for status, *_ in outcome] == [128 + signal.SIGTERM] * 2, outcome
  [step] = Checkpoints(tmp_path).steps()
  assert f'Stopped by SIGTERM: step {step} is saved' in outcome[0][1] and not outcome[1][1]
  assert [line['step'] for line in logged(tmp_path)] == list(range(1, step + 1))


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(two, tmp_path):
  (tmp_path / 'checkpoints').symlink_to(two / 'checkpoints')
  config = config_lib.of_run(two)
  step = generate.generate(config, tmp_path)
  outcome = run_all('cfg_jax.generate', '--workdir', str(two))
  assert [status for status, *_ in outcome] == [0, 0], outcome
  for sample_set in sample_sets(config.sample, step):
    a, b = (images_of(w, sample_set, 20).astype(int) for w in (tmp_path, two))
    assert np.abs(a - b).max() <= 1 and (a != b).mean() < 0.01
  assert (two / sample_set.path / '..' / 'grid.png').exists()


def test_every_row_is_read_by_one_process_and_all_in_their_place(data_dir, monkeypatch):
  source = datasets.DATASETS['digits'].open(data_dir, 'train')
  arguments = {'batch_size': 12, 'seed': 0, 'flip': True, 'position': 1790}
  whole = data.Batches(source, **arguments)
  shares = [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]  # as TPUs may have them: not one range
  parts = [data.Batches(source, **arguments, rows=rows) for rows in shares]
  for _ in range(3):
    batch = next(whole)
    for rows, part in zip(shares, map(next, parts)):
      for own, of_all in zip(jax.tree.leaves(part), jax.tree.leaves(batch)):
        np.testing.assert_array_equal(own, of_all[rows])


def test_shares_are_all_there_is_once(monkeypatch):
  for n, total in ((1, 5), (3, 7), (4, 2)):
    monkeypatch.setattr(jax, 'process_count', lambda n=n: n)
    found = []
    for i in range(n):
      monkeypatch.setattr(jax, 'process_index', lambda i=i: i)
      found.append(processes.share(range(total)))
    assert [x for part in found for x in part] == list(range(total))
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--distributed'], '--distributed finds no cluster here'),
    (['--distributed.process_id=0'], '--distributed.coordinator and --distributed.num_processes'),
    (['localhost:1', 2, 2], '--distributed.process_id=2 must be 0 to 1'),
    (['localhost:1', 0, 0], '--distributed.num_processes=0 must be at least 1'),
    (['localhost', 2, 0], '--distributed.coordinator=localhost must be HOST:PORT'),
  ],
)
def test_bad_flags_are_one_line(tmp_path, data_dir, flags, says):
  if len(flags) == 3:
    names = ('coordinator', 'num_processes', 'process_id')
    flags = [f'--distributed.{name}={value}' for name, value in zip(names, flags)]
  done = run('cfg_jax.train', *tiny_flags(tmp_path, data_dir), *flags)
  assert done.returncode == 2 and says in done.stderr, done.stderr
  assert 'Traceback' not in done.stderr and not list(tmp_path.iterdir())


def test_a_batch_that_the_devices_of_all_processes_do_not_divide_is_one_line(tmp_path, data_dir):
  flags = tiny_flags(tmp_path, data_dir, **{'train.batch_size': 6, 'sample.batch_size': 8})
  for status, _, err in run_all('cfg_jax.train', *flags):
    assert status == 2 and 'train.batch_size=6 must be a multiple of 4 devices' in err, err
  assert not list(tmp_path.iterdir())
