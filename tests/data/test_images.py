"""images.py against exact integer averages, and on real JPEG patches."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from cfg_jax.data.prepare import images

FLOWER = load_sample_image('flower.jpg')  # uint8 (427, 640, 3)


def encoded(image, format='JPEG', **options):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, format, **options)
  return buffer.getvalue()


@pytest.mark.parametrize(
  ('n', 'm'), [(64, 64), (64, 32), (66, 11), (61, 16), (37, 8), (13, 29), (5, 64), (1, 3)]
)
def test_resize_is_the_exact_average_rounded_half_up(n, m):
  image = FLOWER[200 : 200 + n, 300 : 300 + n]
  # Each pixel as an m × m block: then output (j, k) is the plain mean of an n × n block.
  fine = np.repeat(np.repeat(image.astype(np.int64), m, 0), m, 1)
  sums = fine.reshape(m, n, m, n, 3).sum((1, 3))
  np.testing.assert_array_equal(images.resize(image, m), np.floor(sums / n**2 + 0.5))


def test_resize_stays_within_rounding_of_the_float64_average_on_a_large_photograph():
  image = images.central_square(FLOWER)  # 427 × 427, no multiple of 64
  edges = np.arange(65) * 427 / 64
  total = np.pad(image.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
  line = np.arange(428.0)

  def at_edges(cumulative):  # linear between pixels: exact for piecewise constant images
    return np.stack([np.interp(edges, line, c) for c in cumulative.T]).T

  rows = at_edges(total.reshape(428, -1)).reshape(65, 428, 3)
  both = at_edges(rows.transpose(1, 0, 2).reshape(428, -1)).reshape(65, 65, 3).transpose(1, 0, 2)
  average = np.diff(np.diff(both, axis=0), axis=1) / (427 / 64) ** 2
  assert np.abs(images.resize(image, 64) - average).max() <= 0.5 + 1e-9


@pytest.mark.parametrize('h', [7, 8, 9])
@pytest.mark.parametrize('w', [4, 5, 8])
def test_central_square_starts_where_the_authors_start_it(h, w):
  image = np.arange(h * w * 3).reshape(h, w, 3)
  s = min(h, w)
  y, x = (h // 2 - w // 2, 0) if h > w else (0, w // 2 - h // 2)
  np.testing.assert_array_equal(images.central_square(image), image[y : y + s, x : x + s])


def test_decode_goes_by_content_and_gives_rgb():
  patch = FLOWER[100:140, 200:260]
  grey = np.asarray(Image.fromarray(patch).convert('L'))
  cmyk = io.BytesIO()
  Image.fromarray(patch).convert('CMYK').save(cmyk, 'JPEG', quality=100)
  rgba = np.concatenate([patch, np.full((40, 60, 1), 7, np.uint8)], axis=-1)
  for data, kind, expected, tolerance in [
    (encoded(patch, quality=100, subsampling=0), 'JPEG RGB', patch, 4),
    (encoded(grey, quality=100), 'JPEG L', np.repeat(grey[..., None], 3, -1), 4),
    (cmyk.getvalue(), 'JPEG CMYK', patch, 20),  # chroma is subsampled
    (encoded(patch, 'PNG'), 'PNG RGB', patch, 0),
    (encoded(rgba, 'PNG'), 'PNG RGBA', patch, 0),
  ]:
    image, found = images.decode(data, upright=False)
    assert (found, image.dtype, image.shape) == (kind, np.uint8, (40, 60, 3))
    assert np.abs(image.astype(int) - expected).mean() <= tolerance


def test_decode_turns_photographs_only_when_asked():
  exif = Image.Exif()
  exif[0x0112] = 6  # Orientation: the camera was held on its side
  data = encoded(FLOWER[:40, :60], exif=exif)
  assert images.decode(data, upright=False)[0].shape == (40, 60, 3)
  assert images.decode(data, upright=True)[0].shape == (60, 40, 3)


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'no image',
    encoded(FLOWER)[:-2000],
    encoded(FLOWER[:64, :64], 'PNG')[:-500],
    encoded(np.full((4, 4), 1000, np.uint16), 'PNG'),
  ],
  ids=['empty', 'text', 'cut JPEG', 'cut PNG', '16 bits'],
)
def test_decode_refuses_what_is_not_a_whole_8_bit_image(data):
  with pytest.raises(ValueError, match='.'):
    images.decode(data, upright=False)


@pytest.mark.parametrize('channels', [1, 3])
def test_encode_loses_nothing(channels):
  image = FLOWER[:28, :28, :channels]
  decoded = np.asarray(Image.open(io.BytesIO(images.encode(image))))
  np.testing.assert_array_equal(decoded.reshape(image.shape), image)
