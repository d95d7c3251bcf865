"""The page of runs that draw no samples, such as classifiers: scores, losses by quarter of λ."""

import json

import pytest

from cfg_jax.core import evals
from tests.report.reports import report_on, write_run

CONFIG = {
  'method': {'name': 'classifier', 'noised': True, 'times': 'paper'},
  'data': {'name': 'fashion_mnist', 'dir': 'nowhere'},
  'seed': 0,
  'train': {'num_steps': 100},
}
QUARTERS = [f'quarter_{k}' for k in (1, 2, 3, 4)]


@pytest.fixture
def run(tmp_path):
  folder = tmp_path / 'guide'
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(CONFIG))
  log = [
    {'step': 10 * k, 'loss': 1 / k} | {f'loss_{q}': 1 / k for q in QUARTERS} for k in range(1, 11)
  ]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in log))
  return folder


def score(run):
  metrics = {f'top_{k}_{q}': 0.9123456 + k / 100 for q in QUARTERS for k in (1, 5)}
  errors = dict.fromkeys(metrics, 0.0031)
  line = {'version': 3, 'run': 'guide', 'step': 100, 'images': 'test', 'n': 1000}
  evals.write(run / 'scores.jsonl', [line | {'metrics': metrics, 'errors': errors}])


def test_before_it_is_scored_the_page_says_how(run):
  page = report_on(run)
  assert 'classifier on fashion_mnist' in page.text and 'no samples are drawn' in page.text
  assert 'cfg_jax.generate' not in page.text and 'guidance strength' not in page.text
  assert 'It has no scores of held-out images.' in page.text
  assert f'python -m cfg_jax.evaluate --workdir {run}' in page.text
  for k in (1, 2, 3, 4):
    assert f'loss in quarter {k} of λ over step' in page.text


def test_its_scores_are_a_table(run):
  score(run)
  page = report_on(run)
  assert 'What to do next' not in page.text and page.text.count('Scores') == 2
  assert 'top-5 in quarter 4 of λ' in page.text and 'quarter 4 almost the image' in page.text
  assert page.text.count('0.9223 ± 0.0031') == 4 and page.text.count('0.9623 ± 0.0031') == 4


def test_beside_a_run_that_draws(run):
  """It is a page on that, with the scores."""
  score(run)
  write_run(run.parent, 'other', 0.1)
  page = report_on(run.parent)
  assert 'guidance strength' in page.text and 'top-1 in quarter 1 of λ' in page.text
  assert 'cfg_jax.generate' not in page.text


def test_damaged_scores_are_told(run):
  score(run)
  text = (run / 'scores.jsonl').read_text()
  (run / 'scores.jsonl').write_text(text.replace('0.9223456', '0.9923456'))
  with pytest.raises(ValueError, match='scores.jsonl, line 1, is damaged'):
    report_on(run)
