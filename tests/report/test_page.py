"""What `report` writes: the table of cells, and the page."""

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys

import pytest

from cfg_jax.core import files
from cfg_jax.core.versions import VERSION
from cfg_jax.report import cells
from cfg_jax.report import page as report
from cfg_jax.report.curves import curves
from tests.report.reports import STUDY, W, report_on, write_run


@pytest.fixture
def workdir(tmp_path):
  for p in (0.1, 0.2, 0.5):
    write_run(tmp_path, f'p_uncond={p}', p)
  return tmp_path


def rows_of(workdir):
  with (workdir / 'report.csv').open(newline='') as f:
    return list(csv.DictReader(f))


# The files.


def test_csv_has_one_row_for_each_cell_and_its_exact_values(workdir):
  report.write_report(workdir, STUDY)
  rows = rows_of(workdir)
  assert list(rows[0])[:5] == ['run', 'w', 'p_uncond', 'num_steps', 'v']
  assert [(r['run'], float(r['w'])) for r in rows] == [
    (f'p_uncond={p}', w) for p in (0.1, 0.2, 0.5) for w in W
  ]
  lines = (workdir / 'p_uncond=0.2/evals.jsonl').read_text().splitlines()
  for row, cell in zip(rows[len(W) :], map(json.loads, lines)):
    assert {k: float(row[k]) for k in cell['metrics']} == cell['metrics']
    assert row['extractor_sha256'] == 'ab' * 32 and row['ema'] == 'true'


def test_equal_inputs_give_equal_bytes_whatever_the_order_of_lines(workdir):
  report.write_report(workdir, STUDY)
  before = [(workdir / f).read_bytes() for f in ('report.csv', 'report.html')]
  path = workdir / 'p_uncond=0.1/evals.jsonl'
  path.write_text('\n'.join(reversed(path.read_text().splitlines())) + '\n')
  report.write_report(workdir, STUDY)
  assert before == [(workdir / f).read_bytes() for f in ('report.csv', 'report.html')]
  assert sorted(p.name for p in workdir.iterdir() if p.is_file()) == ['report.csv', 'report.html']


def test_a_later_line_of_the_same_identity_counts(workdir):
  metrics = {'FD-digits': 1.25, 'KID': 0.5, 'KID_std': 0.125}
  extra = {'errors': {'KID': 0.05}}
  write_run(workdir, 'p_uncond=0.1', 0.1, ws=(0.3,), metrics=metrics, extra=extra)
  page = report_on(workdir)
  rows = rows_of(workdir)
  assert len(rows) == 3 * len(W)
  (row,) = [r for r in rows if (r['run'], r['w']) == ('p_uncond=0.1', '0.3')]
  assert (row['FD-digits'], row['IS'], row['KID']) == ('1.25', '', '0.5')
  assert '0.500 ± 0.050' in page.text and 'KID_std' not in page.text
  assert row['KID error'] == '0.05'


def curves_of(workdir):
  return curves(cells.read(workdir, STUDY.axis), STUDY.axis)


def test_other_settings_are_other_cells(workdir):
  write_run(workdir, 'p_uncond=0.1', 0.1, num_steps=64)
  assert len(cells.read(workdir, STUDY.axis).cells) == 4 * len(W)
  assert [c.name for c in curves_of(workdir)] == [
    *('p_uncond = 0.1, num_steps = 32', 'p_uncond = 0.1, num_steps = 64'),
    *('p_uncond = 0.2, num_steps = 32', 'p_uncond = 0.5, num_steps = 32'),
  ]


def test_a_curve_is_over_whatever_axis_the_study_has(workdir):
  for num_steps in (8, 16):
    write_run(workdir, 'p_uncond=0.1', 0.1, num_steps=num_steps, ws=(0.0, 1.0))
  axis = 'sample.sampler.num_steps'
  found = curves(cells.read(workdir, axis), axis)
  assert found[0].name == 'p_uncond = 0.1, w = 0' and found[0].x.tolist() == [8, 16, 32]
  assert found[0].values('FD-digits').tolist() == 3 * [12 + 4 * 0.1 + 30 * 0.25]
  report.write_report(workdir, STUDY._replace(axis=axis, scale='log'))
  assert rows_of(workdir)[0].keys() >= {'num_steps', 'w'}
  html = (workdir / 'report.html').read_text()
  assert 'FD-digits over num_steps' in html and 'num_steps = 16, FD-digits 19.9' in html


def test_curves_are_named_by_run_where_settings_do_not_tell_them_apart(tmp_path):
  write_run(tmp_path, 'lr=1', 0.1)
  write_run(tmp_path, 'lr=2', 0.1)
  assert [c.name for c in curves_of(tmp_path)] == ['lr=1', 'lr=2']


def test_a_run_by_itself_is_a_work_directory_too(workdir):
  page = report_on(workdir / 'p_uncond=0.2')
  assert {r['run'] for r in rows_of(workdir / 'p_uncond=0.2')} == {'p_uncond=0.2'}
  assert len(page.data['sets']) == 1


def test_a_torn_line_is_named_and_left_out(workdir):
  with (workdir / 'p_uncond=0.5/evals.jsonl').open('a') as f:
    f.write('{"run": "p_uncond=0.5", "w": 0.')
  page = report_on(workdir)
  assert len(rows_of(workdir)) == 3 * len(W)
  assert 'p_uncond=0.5/evals.jsonl, line 8: left out' in page.text


@pytest.mark.parametrize(
  'line',
  [
    '',
    '{"w": 1}\n',
    '[]\n',
    '{"version": 2, "settings": {"sample": {"guidance": {"w": NaN}}}, "metrics": {}}\n',
    files.json_lines([files.seal({'version': VERSION + 1, 'settings': {}, 'metrics': {}})]),
    pytest.param(
      f'{{"version": 2, "settings": {{"sample": {{"guidance": {{"w": 1{400 * "0"}}}}}}}, '
      '"metrics": {}}\n',
      id='huge',
    ),
  ],
)
def test_nothing_to_report_is_one_line_and_exit_2(tmp_path, line):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run/evals.jsonl').write_text(line)
  (tmp_path / 'report.html').write_text('earlier')
  command = [sys.executable, '-m', 'cfg_jax.report', '--workdir', str(tmp_path)]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1 and f'workdir={str(tmp_path)!r}' in done.stderr
  assert (tmp_path / 'report.html').read_text() == 'earlier'
  assert not (tmp_path / 'report.csv').exists()


def test_a_page_that_fails_leaves_both_files_alone(workdir, monkeypatch):
  monkeypatch.setattr(report, 'to_html', lambda *args: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    report.write_report(workdir, STUDY)
  assert not [p for p in workdir.iterdir() if p.is_file()]


def test_needs_no_jax(workdir):
  code = (
    'import sys, pathlib; from cfg_jax import papers; from cfg_jax.report import page as r; '
    'r.write_report(pathlib.Path(sys.argv[1]), papers.DEFAULT.study); '
    'sys.exit(str({"jax", "flax", "tensorflow"} & set(sys.modules) or "") or 0)'
  )
  done = subprocess.run([sys.executable, '-c', code, workdir], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


# The page.


def test_page_is_self_contained(workdir):
  page = report_on(workdir)
  assert '://' not in page.html.replace('http-equiv', '')
  [policy] = [m['content'] for m in page.all('meta') if m.get('http-equiv')]
  assert "default-src 'none'" in policy and 'unsafe' not in policy
  hashes = {
    tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    for tag, text in re.findall(r'<(script|style)>(.*?)</', page.html, re.DOTALL)
  }
  assert policy.endswith(
    f"style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'"
  )
  assert not [attrs for _, attrs in page.tags if 'style' in attrs]
  assert not page.all('iframe') and not page.all('object') and len(page.all('script')) == 2
  for tag, attrs in page.tags:
    for name in ('src', 'href', 'xlink:href', 'action', 'data'):
      assert attrs.get(name, '#').startswith(('#', 'data:image/png;base64,', 'data:,')), (
        tag,
        attrs,
      )


HOSTILE = """"'&{{7*7}}<img src=x onerror=alert(1)><b>"""


def test_page_escapes_what_comes_from_paths_and_files(tmp_path):
  write_run(
    tmp_path, HOSTILE, 0.1, dataset='<i>d</i>', extra={'note': '</script><script>alert(2)//'}
  )
  write_run(tmp_path, 'other', 0.1, dataset='<i>d</i>', metrics={'<u>FD</u>': 1.0, 'FD<u>': 2.0})
  (tmp_path / HOSTILE / 'config.json').write_text(json.dumps({'<s>k': ['</dl><s>v']}))
  page = report_on(tmp_path)
  for tag in ('b', 'i', 'u', 's'):
    assert not page.all(tag)
  assert len(page.all('script')) == 2 and all('onerror' not in attrs for _, attrs in page.tags)
  assert HOSTILE in page.text and '</dl><s>v' in page.text and '<i>d</i>' in page.text
  assert page.data['sets'][0]['settings']['run'] == HOSTILE
  assert {r['note'] for r in rows_of(tmp_path)} == {'</script><script>alert(2)//', ''}


def test_page_without_samples_has_no_explorer(workdir):
  for samples in workdir.glob('*/samples'):
    shutil.rmtree(samples)
  page = report_on(workdir)
  assert page.data['sets'] == [] and not page.all('img')
  assert 'explorer' not in [attrs.get('id') for attrs in page.all('section')]
  assert len(page.all('circle')) == 3 * 3 * len(W)  # the curves are still there


def test_samples_outside_the_run_are_not_read(tmp_path):
  folder = write_run(tmp_path / 'work', 'run', 0.1)
  shutil.move(folder / 'samples', tmp_path / 'elsewhere')
  evals = (folder / 'evals.jsonl').read_text()
  (folder / 'evals.jsonl').write_text(evals.replace('"samples/', '"../../elsewhere/'))
  assert report_on(tmp_path / 'work').data['sets'] == []


def test_a_damaged_shard_is_named(workdir):
  shard = next((workdir / 'p_uncond=0.2').glob('samples/*/w=1/*.npz'))
  shard.write_bytes(shard.read_bytes()[:-100])
  page = report_on(workdir)
  assert [s['settings']['p_uncond'] for s in page.data['sets']] == ['0.1', '0.5']
  assert 'p_uncond=0.2: samples left out' in page.text


@pytest.mark.parametrize('metrics', [{}, {'IS': 9.0}, {'FD-digits': 3.0, 'IS': float('nan')}])
def test_one_cell_with_missing_metrics(tmp_path, metrics):
  write_run(tmp_path, 'run', 0.1, ws=(0.3,), metrics=metrics)
  page = report_on(tmp_path)
  assert page.text.count('not tested here') == 3
  assert not re.search(r'\bnan\b', page.text, re.IGNORECASE)
  assert len(page.all('circle')) == len([v for v in metrics.values() if v == v])


def test_unknown_fields_are_provenance(tmp_path):
  write_run(tmp_path, 'run', 0.1, ws=(0.0, 1.0), extra={'code': {'version': 7}})
  page = report_on(tmp_path)
  assert ['code', '{"version": 7}'] in page.data['same']
  assert ['w', '1.0'] not in page.data['same'] and ['w', '1'] in page.data['rows'][1]
