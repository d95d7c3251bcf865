"""Batches: what the model is fed, and that their position is one integer."""

import collections
import itertools

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cfg_jax.data import batches as data
from cfg_jax.data import registry as datasets


@pytest.fixture(scope='module')
def source(data_dir):
  return datasets.DATASETS['digits'].open(data_dir, 'train')


def take(iterator, n):
  return [next(iterator) for _ in range(n)]


def batches(source, **changes):
  arguments = {'batch_size': 64, 'seed': 0, 'flip': False} | changes
  return data.Batches(source, **arguments)


def test_the_digits_are_scikit_learns(source):
  original = load_digits()
  pairs = {(e['image'].tobytes(), int(e['label'])) for e in (source[i] for i in range(len(source)))}
  levels = np.round(original.images * (255 / 16)).astype(np.uint8)
  assert pairs == {(image.tobytes(), int(label)) for image, label in zip(levels, original.target)}


def test_batches_are_float32_nhwc_in_minus_one_to_one_with_int32_labels(source):
  batch = next(batches(source))
  assert batch.x.shape == (64, 8, 8, 1) and batch.x.dtype == np.float32
  assert batch.cond.value.shape == (64,) and batch.cond.value.dtype == np.int32
  assert batch.x.min() == -1 and batch.x.max() == 1
  assert set(batch.cond.value) <= set(range(10)) and batch.cond.given.all()


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order(source):
  first, second = (
    np.concatenate(
      [b.cond.value for b in take(batches(source, batch_size=1797, position=k * 1797), 1)]
    )
    for k in range(2)
  )
  assert np.array_equal(np.bincount(first), np.bincount(load_digits().target))
  assert np.array_equal(np.bincount(second), np.bincount(first))
  assert not np.array_equal(first, second)


def test_a_position_resumes_exactly(source):
  """Also past the end of an epoch (1 797 is no multiple of 64), and with random flips."""
  straight = take(batches(source, flip=True), 40)
  resumed = take(batches(source, flip=True, position=25 * 64), 15)
  for a, b in zip(straight[25:], resumed):
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.cond.value, b.cond.value)


def test_flips_mirror_about_half_of_the_images(source):
  plain, flipped = (take(batches(source, flip=flip), 8) for flip in (False, True))
  x, y = (np.concatenate([b.x for b in part]) for part in (plain, flipped))
  same = (x == y).all(axis=(1, 2, 3))
  mirrored = (x[:, :, ::-1] == y).all(axis=(1, 2, 3))
  assert (same | mirrored).all()
  assert 0.4 < same.mean() < 0.6


def test_crops_are_windows_of_the_image_enlarged_to_every_side_equally_often():
  """As ADM's: a side from n to ⌈n/0.8⌉, and a place within, all equally likely."""
  n, rng = 8, np.random.default_rng(0)
  image = np.random.default_rng(1).integers(0, 256, (n, n, 3), dtype=np.uint8)
  windows = {}  # by their bytes: the side, and where it is cut
  for side in range(8, 11):
    large = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    for y, x in itertools.product(range(side - n + 1), repeat=2):
      windows[large[y : y + n, x : x + n].tobytes()] = side, y, x
  assert len(windows) == 1 + 4 + 9
  found = collections.Counter(windows[data.random_crop(image, rng).tobytes()] for _ in range(9000))
  expected = {window: 3000 / (window[0] - n + 1) ** 2 for window in windows.values()}
  for window, count in expected.items():
    assert abs(found[window] - count) < 5 * count**0.5, found
  grey = data.random_crop(image[..., :1], rng)
  assert grey.shape == (n, n, 1) and grey.dtype == np.uint8


def test_crops_resume_exactly_and_flips_go_with_them(source):
  """And every process reads of its rows what one alone does. A flip does not depend on the crop."""
  changes = {'flip': True, 'crop': True}
  straight = take(batches(source, **changes), 6)
  resumed = take(batches(source, **changes, position=3 * 64), 3)
  mine = take(batches(source, **changes, rows=range(32, 64)), 3)
  for a, b in zip(straight[3:], resumed):
    np.testing.assert_array_equal(a.x, b.x)
  for a, b in zip(straight, mine):
    np.testing.assert_array_equal(a.x[32:], b.x)
  assert not np.array_equal(next(batches(source, **changes, seed=1)).x, straight[0].x)
  plain, cropped, both = (
    np.concatenate([b.x for b in take(batches(source, **how), 12)])
    for how in ({}, {'crop': True}, changes)
  )
  whole = (plain == cropped).all((1, 2, 3))
  assert 0.25 < whole.mean() < 0.42  # a third
  same, mirrored = ((cropped == x).all((1, 2, 3)) for x in (both, both[:, :, ::-1]))
  assert (same | mirrored).all()
  assert 0.4 < same[whole].mean() < 0.6 and 0.4 < same[~whole].mean() < 0.6


def test_seeds_differ(source):
  a, b = (next(batches(source, seed=seed)).cond.value for seed in (0, 1))
  assert not np.array_equal(a, b)
