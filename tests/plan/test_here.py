"""How long a config takes on this machine: arithmetic from two measured times."""

import re

import jax
import pytest

from cfg_jax.plan import cost, here
from cfg_jax.plan import show as plan
from tests.conftest import TINY, load_config


@pytest.fixture(scope='module')
def tiny():
  return load_config('digits', **TINY)


@pytest.mark.slow
def test_here_times_are_those_of_the_step_and_the_call(tiny, capsys, monkeypatch):
  """All is arithmetic from two measured times: a step of 16 images, and a call of one."""
  monkeypatch.setattr(here, 'SECONDS', 0)
  found = here.measure(tiny, cost.image_flops(tiny))
  assert found.step > found.call > 0
  assert (found.step_images, found.call_images) == (16, 7 if jax.device_count() == 1 else 8)
  monkeypatch.setattr(here, 'measure', lambda *_: here.Measured(36.0, 16, 0.01, 7))
  plan.show_here(tiny)
  out = capsys.readouterr().out
  assert '1 w' not in out and '2 w × 20 samples, T = 4' in out
  texts = re.findall(r'^  (training:|sampling:|all, with).* ([\d.]+ \w+)$', out, re.M)
  calls = 20 * 4 * (1 + 2)  # w = 0 and 1
  assert dict(texts) == {
    'training:': '7.2 min',  # 12 steps
    'sampling:': f'{0.01 * calls:.3g} s',
    'all, with': f'{(12 * 36 + 0.01 * calls) / 60:.3g} min',
  }


def test_as_many_images_as_take_a_second():
  assert here._images(64, 1e9, 2) == 64
  assert here._images(2048, 6e11, 1) == 1  # ADM-64: one image takes seconds
  assert here._images(128, 2e9, 2) == 64  # 100 would take a second: the next that divides 128


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0.0671, '67.1 ms'), (1.5, '1.5 s'), (90, '1.5 min'), (9000, '2.5 h'), (172800 * 2, '4 d')],
)
def test_times_are_written_as_they_are_read(seconds, text):
  assert plan.duration(seconds) == text
