"""Grey images of one's own: one channel unless three are asked for; what is enlarged is said."""

import numpy as np
import pytest
from PIL import Image

from cfg_jax.data import registry
from tests.raw_datasets import content, run


def write(folder, modes, side=8):
  """A folder of two classes, an image a mode in each; their pixels as uint8 (n, H, W)."""
  pixels = np.random.default_rng(0).integers(256, size=(2, len(modes), side, side), dtype=np.uint8)
  for c, name in enumerate(('circles', 'squares')):
    (folder / name).mkdir(parents=True)
    for i, mode in enumerate(modes):
      Image.fromarray(pixels[c, i]).convert(mode).save(folder / name / f'{i}.png')
  return pixels


def prepare(tmp_path, name, *flags):
  return run(name, '--source', tmp_path / name, '--data_dir', tmp_path, '--workers', 1, *flags)


def test_grey_stays_grey(tmp_path, capsys):
  pixels = write(tmp_path / 'shapes', ('L', 'LA'))
  assert prepare(tmp_path, 'shapes', '--size', 8) == 0
  out = capsys.readouterr().out
  assert 'one channel, as all of them are grey (--rgb' in out and 'ENLARGED' not in out
  assert registry.get('shapes', tmp_path).image_shape == (8, 8, 1)
  images = np.stack([example[0] for example in content('shapes', tmp_path)])
  np.testing.assert_array_equal(images[..., 0], pixels.reshape(-1, 8, 8))


@pytest.mark.parametrize(
  ('modes', 'flags'),
  [(('L', 'L'), ['--rgb', True]), (('L', 'RGB'), [])],
  ids=['asked for', 'one is not'],
)
def test_three_channels(tmp_path, capsys, modes, flags):
  pixels = write(tmp_path / 'shapes', modes)
  assert prepare(tmp_path, 'shapes', '--size', 8, *flags) == 0
  assert 'one channel' not in capsys.readouterr().out
  images = np.stack([example[0] for example in content('shapes', tmp_path)])
  np.testing.assert_array_equal(images, pixels.reshape(-1, 8, 8, 1).repeat(3, -1))


def test_what_is_enlarged_is_said(tmp_path, capsys):
  write(tmp_path / 'shapes', ('L', 'L', 'L'))
  (tmp_path / 'shapes/circles/large.png').write_bytes(b'')
  Image.new('L', (40, 33)).save(tmp_path / 'shapes/circles/large.png')
  assert prepare(tmp_path, 'shapes', '--size', 32) == 0
  out = capsys.readouterr().out
  assert 'ENLARGED, as they are smaller than 32 pixels: 6, the smallest from 8\n' in out


def test_rgb_is_for_data_sets_of_ones_own(tmp_path, capsys):
  write(tmp_path / 'mnist', ('L',))
  assert prepare(tmp_path, 'mnist', '--rgb', True) == 2
  assert '--rgb is for data sets of your own: mnist has its channels' in capsys.readouterr().err
