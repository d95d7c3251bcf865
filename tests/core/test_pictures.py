"""Many images as one picture, and back from its file."""

import io

import numpy as np
import pytest
from PIL import Image

from cfg_jax.core import pictures


@pytest.mark.parametrize('channels', (1, 3))
def test_tiles_are_in_their_places_with_clear_gaps_between(channels):
  shape = (2, 3, 4, 5, channels)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  for gap in (0, 2):
    picture = pictures.tile(images, gap)
    height, width = 4 + gap, 5 + gap
    assert picture.shape == (2 * height - gap, 3 * width - gap, channels + (gap > 0))
    seen = np.zeros(picture.shape[:2], bool)
    for row in range(2):
      for column in range(3):
        place = np.s_[row * height : row * height + 4, column * width : column * width + 5]
        np.testing.assert_array_equal(picture[place][..., :channels], images[row, column])
        seen[place] = True
    if gap:
      np.testing.assert_array_equal(picture[..., -1], np.where(seen, 255, 0))
    else:
      assert seen.all()


@pytest.mark.parametrize('channels', (1, 2, 3, 4))
def test_a_png_holds_the_pixels(channels):
  picture = np.random.default_rng(0).integers(0, 256, (3, 4, channels), np.uint8)
  for optimize in (False, True):
    file = io.BytesIO(pictures.png(picture, optimize))
    np.testing.assert_array_equal(np.array(Image.open(file)).reshape(picture.shape), picture)


def test_enlarged_images_repeat_pixels_up_to_a_size():
  images = np.arange(2 * 8 * 8 * 1, dtype=np.uint8).reshape(2, 8, 8, 1)
  large = pictures.enlarge(images, 32)
  assert large.shape == (2, 32, 32, 1)
  for i, j in ((0, 0), (3, 1), (2, 3)):
    np.testing.assert_array_equal(large[:, i::4, j::4], images)
  np.testing.assert_array_equal(pictures.enlarge(images, 4), images)


def test_rows_and_columns_are_named_beside_the_images():
  images = np.random.default_rng(0).integers(0, 200, (2, 3, 8, 8, 1)).astype(np.uint8)
  rows, columns = ['cat', 'a longer name'], ['w = 0', '1', 'too long to be written in full']
  picture = pictures.labelled(images, rows, columns)
  large, gap = pictures.enlarge(images, 32), 2
  left = picture.shape[1] - 3 * (32 + gap)
  top = picture.shape[0] - 2 * (32 + gap)
  for i in range(2):
    for j in range(3):
      y, x = top + i * (32 + gap), left + j * (32 + gap)
      np.testing.assert_array_equal(picture[y : y + 32, x : x + 32], large[i, j])
    assert picture[top + i * 34 : top + i * 34 + 32, :left].min() < 100  # ink
  heads = [picture[:top, left + j * 34 : left + j * 34 + 32].min() for j in range(3)]
  assert max(heads) < 150 and (picture[:, -1] == 255).all() and picture.shape[2] == 1
  other = pictures.labelled(images, rows, ['w = 4', *columns[1:]])
  assert (other != picture).any() and other.shape == picture.shape
  colour = pictures.labelled(images.repeat(3, -1), rows, columns)
  np.testing.assert_array_equal(colour, picture.repeat(3, -1))
