"""What long work says of itself: no rate counts a compilation."""

import re
import types

import pytest

from cfg_jax.core import progress


@pytest.fixture
def clock(monkeypatch):
  now = types.SimpleNamespace(seconds=0.0)
  fake = types.SimpleNamespace(monotonic=lambda: now.seconds)
  monkeypatch.setattr(progress, 'time', fake)
  return now


def test_compiling_is_said_with_its_seconds_and_counts_in_no_estimate(clock, capsys):
  shown = progress.Progress('train a', 100, unit='steps', seconds=5, compiles=True)
  assert capsys.readouterr().out == 'train a: compiling …\n'
  clock.seconds = 180.0
  shown.update(1, '')
  assert capsys.readouterr().out == 'train a: 1/100 steps, 0 s  compiled in 180 s\n'
  for _ in range(5):
    clock.seconds += 2
    shown.update(1, 'loss 0.500')
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == 'train a: 4/100 steps, 6 s, 192 s left  loss 0.500'


def test_what_an_earlier_process_did_counts_in_no_estimate(clock, capsys):
  shown = progress.Progress('generate a', 100, start=60, unit='images', seconds=0)
  clock.seconds = 10.0
  shown.update(20)
  assert capsys.readouterr().out == 'generate a: 80/100 images, 10 s, 10 s left\n'


def test_on_a_terminal_the_bar_begins_after_the_compilation(clock, monkeypatch, capsys):
  monkeypatch.setattr('sys.stderr.isatty', lambda: True)
  shown = progress.Progress('train a', 10, unit='steps', compiles=True)
  assert capsys.readouterr().err == 'train a: compiling …\n'
  shown.update(1)
  shown.update(1, 'loss 0.5')
  shown.done('loss 0.5')
  err = capsys.readouterr().err
  assert re.search(r'train a: +10%.* 1/10 ', err) and '2/10' in err and 'loss 0.5' in err


def test_silent_is_silent(capsys):
  shown = progress.Progress('train a', 10, silent=True, compiles=True)
  shown.update(10)
  shown.done()
  assert capsys.readouterr() == ('', '')
