"""Images from .npz files, folders and shards: all of them, in order, and bad ones refused."""

import numpy as np
import pytest
from PIL import Image

from cfg_jax.evaluate import images as samples
from tests import random_inception

IMAGES = random_inception.images(0, 23, 6, 5, 3)


def save_pictures(folder, images, nested=False, suffix='.png'):
  for i, image in enumerate(images):
    path = folder / (f'{i // 10}' if nested else '') / f'{i:03d}{suffix}'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def sources(folder):
  np.savez(folder / 'plain.npz', IMAGES, np.arange(23))
  yield folder / 'plain.npz'
  np.savez_compressed(folder / 'deflated.npz', arr_0=IMAGES)
  yield folder / 'deflated.npz'
  save_pictures(folder / 'flat', IMAGES)
  yield folder / 'flat'
  save_pictures(folder / 'nested', IMAGES, nested=True)
  yield folder / 'nested'
  (folder / 'shards').mkdir()
  for a, b in ((0, 9), (9, 20), (20, 23)):
    np.savez_compressed(
      folder / 'shards' / f'{a:08d}-{b:08d}.npz',
      images=IMAGES[a:b],
      labels=np.zeros(b - a, np.int32),
      indices=np.arange(a, b),
    )
  yield folder / 'shards'


def test_every_source_gives_the_same_images(tmp_path):
  for path in sources(tmp_path):
    images = samples.open_images(path)
    assert (images.n, images.shape) == (23, (6, 5, 3)), path
    for size in (1, 7, 23, 100):
      batches = list(images.batches(size))
      assert [len(b) for b in batches] == [size] * (23 // size) + [23 % size] * (23 % size > 0)
      np.testing.assert_array_equal(np.concatenate(batches), IMAGES)
      assert all(b.dtype == np.uint8 for b in batches)
    limited = np.concatenate(list(images.batches(4, limit=10)))
    np.testing.assert_array_equal(limited, IMAGES[:10])


def test_npz_is_read_in_parts(tmp_path, monkeypatch):
  monkeypatch.setattr(samples, 'PIECE_BYTES', 9 * 6 * 5 * 3 + 1)
  np.savez_compressed(tmp_path / 'all.npz', IMAGES)
  pieces = list(samples.open_images(tmp_path / 'all.npz').pieces())
  assert [len(piece) for piece in pieces] == [9, 9, 5]
  np.testing.assert_array_equal(np.concatenate(pieces), IMAGES)


def test_grey_stays_grey_until_an_extractor_widens_it(tmp_path):
  save_pictures(tmp_path, IMAGES[..., :1])
  images = samples.open_images(tmp_path)
  assert images.shape == (6, 5, 1)
  np.testing.assert_array_equal(next(images.batches(23)), IMAGES[..., :1])


@pytest.mark.parametrize('grey', [(3,), (0, 1)])
def test_grey_pictures_among_colour_are_widened_and_said_once(tmp_path, caplog, grey):
  expected = IMAGES[:4].copy()
  expected[list(grey)] = expected[list(grey)][..., :1]
  save_pictures(tmp_path, expected)
  for i in grey:
    Image.fromarray(expected[i, ..., 0]).save(tmp_path / f'00{i}.png')
  with caplog.at_level('INFO'):
    images = samples.open_images(tmp_path)
    assert images.shape == (6, 5, 3)
    np.testing.assert_array_equal(next(images.batches(4)), expected)
  assert [r.getMessage() for r in caplog.records] == [
    f'{tmp_path}/00{grey[0]}.png (the first of its kind) is grey: repeated as red, green and blue.'
  ]


def test_jpeg_is_read_and_said(tmp_path, caplog):
  save_pictures(tmp_path, IMAGES, suffix='.JPEG')
  with caplog.at_level('INFO'):
    assert samples.open_images(tmp_path).n == 23
  assert 'JPEG' in caplog.text


def one_line(error):
  return '\n' not in str(error.value) and 'Errno' not in str(error.value)


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (IMAGES / 255, r'float64 .*convert them with cfg_jax.evaluate.images.to_uint8'),
    (IMAGES.astype(np.int64), 'int64'),
    (IMAGES[..., 0], r'\(23, 6, 5\).*add a last axis'),
    (IMAGES.transpose(0, 3, 1, 2), r'\(23, 3, 6, 5\).*transpose \(0, 2, 3, 1\)'),
    (np.concatenate([IMAGES, IMAGES[..., :1]], -1), 'drop the alpha channel'),
    (IMAGES[..., :2], r'\(23, 6, 5, 2\)'),
    (IMAGES[:0], 'holds no images'),
    ((IMAGES > 128).astype(np.uint8), 'no value above 1'),
    (np.asfortranarray(IMAGES), 'Fortran order'),
    (IMAGES.astype(object), 'object'),
  ],
)
def test_bad_arrays(tmp_path, array, message):
  np.savez(tmp_path / 'bad.npz', array)
  with pytest.raises(ValueError, match=rf'bad.npz.*{message}') as error:
    samples.open_images(tmp_path / 'bad.npz')
  assert one_line(error)


def test_bad_files(tmp_path):
  with pytest.raises(ValueError, match='does not exist'):
    samples.open_images(tmp_path / 'nowhere')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='empty holds no .npz, .png'):
    samples.open_images(tmp_path / 'empty')
  (tmp_path / 'a.txt').write_text('text')
  with pytest.raises(ValueError, match='neither an .npz file nor a folder'):
    samples.open_images(tmp_path / 'a.txt')
  np.savez(tmp_path / 'other.npz', mu=np.zeros(3))
  with pytest.raises(ValueError, match='has mu, but no arr_0 or images'):
    samples.open_images(tmp_path / 'other.npz')


def test_damaged_npz(tmp_path):
  path = tmp_path / 'bad.npz'
  np.savez_compressed(path, IMAGES)
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[len(whole) // 2] ^= 255
  for damaged in (whole[:-30], whole[: len(whole) // 2], b'', b'text', bytes(flipped)):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match='bad.npz is damaged') as error:
      list(samples.open_images(path).batches(10))
    assert one_line(error)


def test_bad_pictures(tmp_path):
  save_pictures(tmp_path, IMAGES[:2])
  last = tmp_path / '002.png'

  def check(message):
    with pytest.raises(ValueError, match=message) as error:
      list(samples.open_images(tmp_path).batches(10))
    assert '\n' not in str(error.value)

  Image.fromarray(IMAGES[2][:4]).save(last)
  check(r'002.png is \(4, 5, 3\) and .*000.png \(6, 5, 3\)')
  Image.fromarray(IMAGES[2]).convert('RGBA').save(last)
  check('002.png has mode RGBA')
  Image.fromarray(IMAGES[2, ..., 0].astype(np.uint16)).save(last)
  check('002.png has mode I;16')
  last.write_bytes((tmp_path / '000.png').read_bytes()[:60])
  check('002.png cannot be read')


def test_shards_of_different_sizes(tmp_path):
  np.savez(tmp_path / 'a.npz', images=IMAGES)
  np.savez(tmp_path / 'b.npz', images=IMAGES[:, :5])
  with pytest.raises(ValueError, match='mixes images of shapes'):
    samples.open_images(tmp_path)


class TestToUint8:
  def test_ends_and_rounding(self):
    x = np.array([-1, 1, 0, 1 / 256, -1 / 256])
    np.testing.assert_array_equal(samples.to_uint8(x), [0, 255, 128, 128, 127])
    np.testing.assert_array_equal(samples.to_uint8(x, 'truncate'), [0, 255, 127, 127, 127])

  def test_every_level_survives(self):
    levels = np.arange(256)
    np.testing.assert_array_equal(samples.to_uint8(levels / 127.5 - 1), levels)

  def test_bad_input(self):
    with pytest.raises(ValueError, match='from 0 to 255'):
      samples.to_uint8(np.array([0, 255]))
    with pytest.raises(ValueError, match='must lie in'):
      samples.to_uint8(np.array([0, np.nan]))
    with pytest.raises(ValueError, match="quantisation='floor'"):
      samples.to_uint8(np.zeros(3), 'floor')
