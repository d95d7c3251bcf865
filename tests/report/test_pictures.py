"""The samples in the page, and the pictures as PNG files."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from cfg_jax.report import figures
from cfg_jax.report import page as report
from cfg_jax.report.cells import format_value
from tests.report.reports import STUDY, report_on, write_run


@pytest.fixture
def workdir(tmp_path):
  for p in (0.1, 0.2, 0.5):
    write_run(tmp_path, f'p_uncond={p}', p)
  return tmp_path


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
      for c in range(len(info['x']))
    ]
    for r in range(len(info['classes']))
  ]


def test_sheets_hold_the_same_noise_under_each_w(workdir):
  page = report_on(workdir)
  info = page.data['sets'][1]
  assert info['x'] == ['0', '0.1', '0.3', '0.5', '1', '2', '4']
  assert info['classes'] == list('0123456789') and info['indices'][3] == list(range(30, 40))
  shown = tiles(page, 1, 3)
  for column, w in enumerate(info['x']):
    folder = workdir / f'p_uncond=0.2/samples/step=1500,ema,ddpm,T=32/w={w}'
    images = np.concatenate([np.load(p)['images'] for p in sorted(folder.glob('*.npz'))])
    for row in range(10):
      np.testing.assert_array_equal(shown[row][column][..., :1], images[30 + row])
  fd = {k: v for k, v in info['metrics'][3]}['FD-digits']
  assert fd == format_value(12 + 4 * 0.2)  # at w = 0.5


def test_only_noises_that_every_w_has_are_shown(workdir):
  folder = next((workdir / 'p_uncond=0.1').glob('samples/*/w=2'))
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
  assert len(info['indices']) == 1 and 8 <= len(info['x']) <= 11
  assert (info['x'][0], info['x'][-1]) == ('0', '4')
  assert len(page.html) < 1.5 * budget + 3e5  # base64 and PNG's overhead on noise; then the rest
  assert f'{len(info["x"])} of 41 values of w are shown' in page.text
  monkeypatch.setattr(report, 'MAX_PIXEL_BYTES', 1000)
  page = report_on(tmp_path)
  assert page.data['sets'] == [] and 'Samples of run are not shown' in page.text


def test_write_png(workdir, tmp_path):
  figures.write_png(workdir, tmp_path / 'picture.png', STUDY)
  first = np.array(Image.open(tmp_path / 'picture.png'))
  assert first.shape[1] > 1000 and len(np.unique(first.reshape(-1, first.shape[-1]), axis=0)) > 100
  for samples in workdir.glob('*/samples'):
    shutil.rmtree(samples)
  figures.write_png(workdir, tmp_path / 'curves.png', STUDY)
  assert np.array(Image.open(tmp_path / 'curves.png')).shape[1] < first.shape[1]
