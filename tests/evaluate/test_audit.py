"""The audit of a run's two predictions, as its user meets it."""

import math

import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core import evals
from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate import audit
from tests.generate.test_guide import random_run


@pytest.fixture(autouse=True)
def few(monkeypatch):
  monkeypatch.setattr(audit, 'BINS', 4)
  monkeypatch.setattr(audit, 'BATCH', 8)


def test_a_run_is_audited_once(tiny, tmp_path, call):
  """What is told is what is recorded, and a random network's two predictions differ by errors."""
  random_run(tiny, tmp_path, 0)
  done = call(evaluate, 'audit', '--workdir', tmp_path, '--num_samples', 20)
  assert done.returncode == 0, done.stderr
  [line] = evals.read(tmp_path / 'audits.jsonl')
  found, error = line['metrics']['information'], line['errors']['information']
  profile = line['profile']
  assert found == pytest.approx(np.sum(np.diff(profile['edges']) * profile['density']))
  assert (line['step'], line['n'], len(profile['density'])) == (3, 20, 4)
  assert f'In all {found:.3f} ± {error:.3f} nats; ln 10 = 2.303 is the most' in done.stdout
  assert ('It is more: ' in done.stdout) == (found - 2 * error > math.log(10))
  low, high = line['metrics']['low'], line['metrics']['high']
  assert f'80% lie in {low:.2f} ± ' in done.stdout and -20 <= low < high <= 20

  before = (tmp_path / 'audits.jsonl').read_bytes()
  again = call(evaluate, 'audit', '--workdir', tmp_path, '--num_samples', 20)
  assert (tmp_path / 'audits.jsonl').read_bytes() == before
  assert again.stdout.splitlines()[-3:] == done.stdout.splitlines()[-3:]
  assert f'less by {line["metrics"]["gain"]:.3f} ± ' in done.stdout
  assert 'compiling' in done.stdout and 'compiling' not in again.stdout


def test_numbers_from_values():
  """Of four images in two bins of lengths 1 and 3."""
  values, edges = np.array([[1.0, 0], [3, 0], [1, 1], [3, 1]]), np.array([0.0, 1, 4])
  line = audit.measure(audit.information.Profile(values, values - 1), edges)
  assert line['metrics']['gain'] == pytest.approx(2 + 3 * 0.5 - 4)
  assert line['metrics']['information'] == pytest.approx(2 + 3 * 0.5)
  assert line['errors']['information'] == pytest.approx(np.std([1, 3, 4, 6]) / 2)
  assert line['metrics']['low'] == 0 and line['metrics']['high'] == pytest.approx(1 + 0.8 / 0.5)
  assert line['profile']['errors'] == pytest.approx([0.5, 0.25])
  assert line['errors']['low'] >= 0 and line['errors']['high'] > 0
  line |= {'run': 'r', 'step': 1, 'n': 4, 'dataset': 'd', 'bins': 2, 'classes': 3}
  assert 'It is more' in audit.told(line)
  assert 'It is more' not in audit.told(line | {'classes': 100})
  assert 'errors with ∅' not in audit.told(line)
  line = audit.measure(audit.information.Profile(values, values + 1), edges)
  line |= {'run': 'r', 'step': 1, 'n': 4, 'dataset': 'd', 'bins': 2, 'classes': 3}
  gain = 3.5 + 4
  assert f'at least {gain - math.log(3):.3f} of them are lost by errors with ∅' in audit.told(line)


@pytest.mark.parametrize(
  'changes, words, said',
  [
    ({}, [], 'audit needs --workdir'),
    ({}, ['--w', '1', '--workdir', 'RUN'], 'audit does not take --w'),
    ({}, ['--workdir', 'RUN', '--num_samples', '1'], '--num_samples=1: digits has 1797 images'),
    ({'method.p_uncond': 0.0}, ['--workdir', 'RUN'], 'never seen ∅'),
    ({'method.p_uncond': 1.0}, ['--workdir', 'RUN'], 'never seen classes'),
  ],
)
def test_what_is_wrong_is_one_line(tiny, tmp_path, call, changes, words, said):
  texts = [f'{name}={value}' for name, value in changes.items()]
  if 'RUN' in words:
    random_run(config_lib.change(tiny, texts), tmp_path, 0)
  done = call(evaluate, 'audit', *(tmp_path if w == 'RUN' else w for w in words))
  assert done.returncode == 2 and said in done.stderr and done.stderr.count('\n') == 1, done.stderr
