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


def test_names_stand_before_rows_and_above_columns():
  """The images lie as `tile` lays them, below and to the right of what is written in black."""
  images = np.full((2, 3, 32, 32, 1), 200, np.uint8)
  picture = pictures.labelled(images, ['w = 0', 'w = 1'], ['a', 'b', 'c'], gap=2)
  top, left = picture.shape[0] - 2 * 32 - 2, picture.shape[1] - 3 * 32 - 2 * 2
  assert 12 <= top <= 40 and 20 <= left <= 80
  expected = pictures.tile(images, gap=2)
  inside = picture[top:, left:, 0]
  np.testing.assert_array_equal(inside, np.where(expected[..., 1] == 255, 200, 255))
  for written in (picture[:top, left:], picture[top : top + 32, :left], picture[top + 34 :, :left]):
    assert written.min() < 100 and written.max() == 255
  assert (picture[:top, :left] == 255).all()
  np.testing.assert_array_equal(
    pictures.labelled(images, [], []), pictures.tile(images), strict=True
  )
