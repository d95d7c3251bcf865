"""What `report` writes: the table of cells, the page, the pictures in it."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cfg_jax.report import cells as results
from cfg_jax.report import figures
from cfg_jax.report import page as report
from cfg_jax.report.cells import format_value
from tests.report.reports import W, report_on, write_run


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
  report.write_report(workdir)
  rows = rows_of(workdir)
  assert list(rows[0])[:5] == ['run', 'w', 'p_uncond', 'T', 'v']
  assert [(r['run'], float(r['w'])) for r in rows] == [
    (f'p_uncond={p}', w) for p in (0.1, 0.2, 0.5) for w in W
  ]
  cells = [json.loads(s) for s in (workdir / 'p_uncond=0.2/evals.jsonl').read_text().splitlines()]
  for row, cell in zip(rows[len(W) :], cells):
    assert {k: float(row[k]) for k in cell['metrics']} == cell['metrics']
    assert row['extractor_sha256'] == 'ab' * 32 and row['ema'] == 'true'


def test_equal_inputs_give_equal_bytes_whatever_the_order_of_lines(workdir):
  report.write_report(workdir)
  before = [(workdir / f).read_bytes() for f in ('report.csv', 'report.html')]
  path = workdir / 'p_uncond=0.1/evals.jsonl'
  path.write_text('\n'.join(reversed(path.read_text().splitlines())) + '\n')
  report.write_report(workdir)
  assert before == [(workdir / f).read_bytes() for f in ('report.csv', 'report.html')]
  assert sorted(p.name for p in workdir.iterdir() if p.is_file()) == ['report.csv', 'report.html']


def test_a_later_line_of_the_same_identity_counts(workdir):
  metrics = {'FD-digits': 1.25, 'KID': 0.5, 'KID_std': 0.125}
  write_run(workdir, 'p_uncond=0.1', 0.1, ws=(0.3,), metrics=metrics)
  page = report_on(workdir)
  rows = rows_of(workdir)
  assert len(rows) == 3 * len(W)
  (row,) = [r for r in rows if (r['run'], r['w']) == ('p_uncond=0.1', '0.3')]
  assert (row['FD-digits'], row['IS'], row['KID']) == ('1.25', '', '0.5')
  assert '0.5 ± 0.125' in page.text and 'KID_std' not in page.text


def test_other_settings_are_other_cells(workdir):
  write_run(workdir, 'p_uncond=0.1', 0.1, T=64)
  found = results.read(workdir)
  assert len(found.cells) == 4 * len(W)
  assert [c.name for c in results.curves(found.cells)] == [
    *('p_uncond = 0.1, T = 32', 'p_uncond = 0.1, T = 64'),
    *('p_uncond = 0.2, T = 32', 'p_uncond = 0.5, T = 32'),
  ]


def test_curves_are_named_by_run_where_settings_do_not_tell_them_apart(tmp_path):
  write_run(tmp_path, 'lr=1', 0.1)
  write_run(tmp_path, 'lr=2', 0.1)
  assert [c.name for c in results.curves(results.read(tmp_path).cells)] == ['lr=1', 'lr=2']


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
    '{"w": NaN, "metrics": {}}\n',
    pytest.param(f'{{"w": 1{400 * "0"}, "metrics": {{}}}}\n', id='huge'),
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
  monkeypatch.setattr(report, 'to_html', lambda found: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    report.write_report(workdir)
  assert not [p for p in workdir.iterdir() if p.is_file()]


def test_needs_no_jax(workdir):
  code = (
    'import sys, pathlib, cfg_jax.report as r; r.write_report(pathlib.Path(sys.argv[1])); '
    'sys.exit(str({"jax", "flax", "matplotlib", "tensorflow"} & set(sys.modules) or "") or 0)'
  )
  done = subprocess.run([sys.executable, '-c', code, workdir], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


# The page.


def test_page_is_self_contained(workdir):
  page = report_on(workdir)
  assert '://' not in page.html.replace('http-equiv', '')
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
  shard = next((workdir / 'p_uncond=0.2').glob('samples/*/*/w=1/*.npz'))
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


# The pictures.


def tiles(page, index, sheet):
  """The tiles of one embedded sheet, [class row][w column], (H, W, channels and alpha)."""
  (src,) = [a['src'] for a in page.all('img') if a['id'] == f'sheet-{index}-{sheet}']
  pixels = np.array(Image.open(io.BytesIO(base64.b64decode(src.split(',')[1]))))
  info = page.data['sets'][index]
  width, height = info['pitch']
  gap = info['gap']
  return [
    [
      pixels[r * height : (r + 1) * height - gap, c * width : (c + 1) * width - gap]
      for c in range(len(info['w']))
    ]
    for r in range(len(info['classes']))
  ]


def test_sheets_hold_the_same_noise_under_each_w(workdir):
  page = report_on(workdir)
  info = page.data['sets'][1]
  assert info['w'] == ['0', '0.1', '0.3', '0.5', '1', '2', '4']
  assert info['classes'] == list(range(10)) and info['indices'][3] == list(range(30, 40))
  shown = tiles(page, 1, 3)
  for column, w in enumerate(info['w']):
    folder = workdir / f'p_uncond=0.2/samples/step=1500,ema/T=32,v=0.3,seed=0,labels=balanced/w={w}'
    images = np.concatenate([np.load(p)['images'] for p in sorted(folder.glob('*.npz'))])
    for row in range(10):
      np.testing.assert_array_equal(shown[row][column][..., :1], images[30 + row])
  fd = {k: v for k, v in info['metrics'][3]}['FD-digits']
  assert fd == format_value(12 + 4 * 0.2)  # at w = 0.5


def test_only_noises_that_every_w_has_are_shown(workdir):
  folder = next((workdir / 'p_uncond=0.1').glob('samples/*/*/w=2'))
  sorted(folder.glob('*.npz'))[0].unlink()  # indices 0 to 49
  page = report_on(workdir)
  assert page.data['sets'][0]['indices'][0] == list(range(50, 60))
  assert page.data['sets'][1]['indices'][0] == list(range(10))


def test_large_images_are_thinned_to_the_budget(tmp_path, monkeypatch):
  images = np.random.default_rng(0).random((40, 64, 64, 3))
  ws = [j / 10 for j in range(41)]
  write_run(tmp_path, 'run', 0.1, n=40, ws=ws, images=images, dataset='imagenet64', distance='FID')
  budget = 11 * 10 * 64 * 64 * 3
  monkeypatch.setattr(report, 'MAX_PIXEL_BYTES', budget)
  page = report_on(tmp_path)
  (info,) = page.data['sets']
  assert len(info['indices']) == 1 and 8 <= len(info['w']) <= 11
  assert (info['w'][0], info['w'][-1]) == ('0', '4')
  assert len(page.html) < 1.5 * budget + 3e5  # base64 and PNG's overhead on noise; then the rest
  assert f'{len(info["w"])} of 41 values of w are shown' in page.text
  monkeypatch.setattr(report, 'MAX_PIXEL_BYTES', 1000)
  page = report_on(tmp_path)
  assert page.data['sets'] == [] and 'Samples of run are not shown' in page.text


def test_write_png(workdir, tmp_path):
  figures.write_png(workdir, tmp_path / 'picture.png')
  first = np.array(Image.open(tmp_path / 'picture.png'))
  assert first.shape[1] > 1000 and len(np.unique(first.reshape(-1, first.shape[-1]), axis=0)) > 100
  for samples in workdir.glob('*/samples'):
    shutil.rmtree(samples)
  figures.write_png(workdir, tmp_path / 'curves.png')
  assert np.array(Image.open(tmp_path / 'curves.png')).shape[1] < first.shape[1]


@pytest.mark.parametrize(
  'low, high', [(0, 4), (1.55, 26.22), (9.64, 10.01), (3, 3), (0, 0), (-1, 4)]
)
def test_ticks_are_few_round_and_cover(low, high):
  got = figures.ticks(low, high)
  assert got[0] <= low and high <= got[-1] and 2 <= len(got) <= 8
  steps = np.diff(got)
  np.testing.assert_allclose(steps, steps[0])
  assert f'{steps[0]:.0e}'[0] in '125'
