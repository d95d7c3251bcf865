"""A report always: before there are metrics it shows samples, training, and what to do next."""

import json

import pytest

from cfg_jax.core.errors import UserError
from tests.report.reports import report_on, write_run

CONFIG = {
  'method': {'name': 'classifier_free', 'p_uncond': 0.1},
  'data': {'name': 'fashion_mnist', 'dir': 'nowhere'},
  'seed': 0,
  'train': {'num_steps': 200},
  'evaluate': {'extractor': 'inception'},
}


@pytest.fixture
def run(tmp_path):
  """A run with samples of which none is evaluated, and a log."""
  folder = write_run(tmp_path, 'run', 0.1, n=20, ws=(0.0, 1.0))
  for line in (folder / 'evals.jsonl').read_text().splitlines():
    cell = json.loads(line)
    identity = {'step': 1500, 'sample': cell['settings']['sample']}
    (folder / cell['samples'] / 'identity.json').write_text(json.dumps(identity))
  (folder / 'config.json').write_text(json.dumps(CONFIG))
  log = [{'step': 10 * k, 'loss': 1 / k, 'grad_norm': 0.1} for k in range(1, 11)]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in log))
  return folder


def test_samples_training_and_commands(run):
  (run / 'evals.jsonl').unlink()
  page = report_on(run)
  assert page.data['sets'][0]['x'] == ['0', '1'] and page.all('img')
  assert 'loss over step' in page.text and "the gradient's norm over step" in page.text
  assert 'It is at step 100 of 200' in page.text and 'Inception weights' in page.text
  assert f'python -m cfg_jax.evaluate --workdir {run}' in page.text
  assert f'python -m cfg_jax.report --workdir {run}' in page.text
  ids = {attrs.get('id') for attrs in page.all('section')}
  assert {'next', 'explorer', 'samples', 'training'} <= ids and not {'findings', 'numbers'} & ids
  assert (run / 'report.csv').read_text().count('\n') == 1


def test_samples_alone_and_a_log_alone(run):
  (run / 'evals.jsonl').unlink()
  log = (run / 'metrics.jsonl').read_text()
  (run / 'metrics.jsonl').unlink()
  assert 'loss over step' not in report_on(run).text
  (run / 'metrics.jsonl').write_text(log)
  for file in run.glob('samples/*/*/*.npz'):
    file.unlink()
  page = report_on(run.parent)
  assert page.data['sets'] == [] and 'loss over step' in page.text
  assert f'python -m cfg_jax.generate --workdir {run}' in page.text


def test_a_sweep_goes_on_by_one_command(run):
  (run / 'evals.jsonl').unlink()
  (run.parent / 'sweep.json').write_text('{}')
  page = report_on(run.parent)
  assert f'python -m cfg_jax.sweep --workdir {run.parent} --retry' in page.text
  assert 'cfg_jax.generate' not in page.text


def test_sets_that_are_not_evaluated_stand_beside_those_that_are(run):
  lines = (run / 'evals.jsonl').read_text().splitlines()
  config = CONFIG | {'data': {'name': 'digits', 'dir': 'nowhere'}}
  (run / 'config.json').write_text(json.dumps(config))
  (run / 'evals.jsonl').write_text(lines[0] + '\n')
  page = report_on(run)
  [shown] = page.data['sets']
  assert shown['x'] == ['0', '1'] and shown['metrics'][1] == [] and shown['metrics'][0]
  assert 'What to do next' not in page.text and 'Findings' in page.text


def test_classes_have_the_names_of_the_data(run, tmp_path):
  names = ['zero', 'one', *'23456789']
  labels = tmp_path / 'data/fashion_mnist/3.0.1/label.labels.txt'
  labels.parent.mkdir(parents=True)
  labels.write_text('\n'.join(names) + '\n')
  config = CONFIG | {'data': {'name': 'fashion_mnist', 'dir': str(tmp_path / 'data')}}
  (run / 'config.json').write_text(json.dumps(config))
  assert report_on(run).data['sets'][0]['classes'] == names


def test_what_is_damaged_is_named_and_the_page_comes(run):
  (run / 'evals.jsonl').unlink()
  (run / 'metrics.jsonl').write_text('{"step": 1, "loss": 1}\n{"st\n')
  next(run.glob('samples/*/w=1/identity.json')).write_text('{')
  page = report_on(run)
  assert 'metrics.jsonl: 1 damaged lines are left out' in page.text
  assert 'identity.json: left out' in page.text and page.data['sets'][0]['x'] == ['0']


def test_where_there_is_nothing_it_says_so(tmp_path):
  with pytest.raises(UserError, match='no samples and no log of a training'):
    report_on(tmp_path)
  assert not list(tmp_path.iterdir())


def test_cells_of_the_table_for_spreadsheets_are_no_formulas(run):
  write_run(run.parent, '=1+2', 0.1, n=20, ws=(0.0,), extra={'note': '@SUM(A1)', '-x': -1.5})
  report_on(run.parent)
  text = (run.parent / 'report.csv').read_text()
  assert "'=1+2" in text and "'@SUM(A1)" in text and "'-x" in text
  assert ',-1.5' in text and not [
    x for x in text.replace('\n', ',').split(',') if x[:1] in ('=', '@', '+')
  ]
