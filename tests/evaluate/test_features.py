"""Images stream into the same features whatever the batches and interruptions."""

import numpy as np
import pytest

from cfg_jax.core.progress import Progress
from cfg_jax.evaluate import features
from tests import random_inception

IMAGES = random_inception.images(0, 60, 5, 4, 3)


class Projection:
  """A tiny extractor: random projections of pixels."""

  name, sha256, dim = 'projection', 'abc', 6
  resize, is_public, labels_of = 'none', False, None

  def __init__(self, spatial=True):
    self.spatial, self.seen = spatial, 0
    self.matrix = np.random.RandomState(0).normal(size=(60, 12)).astype(np.float32)

  def __call__(self, images):
    self.seen += len(images)
    out = images.reshape(len(images), -1).astype(np.float32) / 255 @ self.matrix
    spatial = {'spatial': out[:, 6:9]} if self.spatial else {}
    return {'features': out[:, :6], 'logits': out[:, 9:], **spatial}


def in_batches(images, size):
  return (images[i : i + size] for i in range(0, len(images), size))


def assert_same(a, b):
  np.testing.assert_allclose(a.kept, b.kept, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(a.logits, b.logits, rtol=1e-5, atol=1e-6)
  assert a.moments.n == b.moments.n and a.fingerprint == b.fingerprint
  np.testing.assert_allclose(a.moments.cov, b.moments.cov, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(a.spatial.mean, b.spatial.mean, rtol=1e-5)


def test_any_batches():
  extractor = Projection()
  whole = features.stream([IMAGES], extractor)
  out = extractor(IMAGES)
  np.testing.assert_array_equal(whole.kept, out['features'])
  np.testing.assert_allclose(whole.moments.mean, out['features'].mean(axis=0), rtol=1e-5)
  np.testing.assert_allclose(whole.spatial.cov, np.cov(out['spatial'], rowvar=False), rtol=1e-4)
  np.testing.assert_allclose(whole.probs.sum(axis=1), 1, rtol=1e-14)
  for size in (1, 7, 59):
    assert_same(features.stream(in_batches(IMAGES, size), extractor), whole)
  other = features.stream([IMAGES[::-1]], extractor)
  assert other.fingerprint != whole.fingerprint


def test_kept_rows():
  keep = np.arange(60) % 7 == 3
  whole = features.stream([IMAGES], Projection())
  some = features.stream(in_batches(IMAGES, 11), Projection(spatial=False), keep=keep)
  np.testing.assert_allclose(some.kept, whole.kept[keep], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(some.logits, whole.logits[keep], rtol=1e-5, atol=1e-6)
  assert some.moments.n == 60 and some.spatial is None


class Interrupted(Exception):
  pass


def stop_after(batches, count):
  for i, batch in enumerate(batches):
    if i == count:
      raise Interrupted
    yield batch


class TestResume:
  @pytest.fixture
  def path(self, tmp_path, monkeypatch):
    """An extraction of 60 images that was killed after 35."""
    monkeypatch.setattr(features, 'SAVE_SECONDS', -1)
    path = tmp_path / 'run' / 'unfinished.npz'
    with pytest.raises(Interrupted):
      features.stream(stop_after(in_batches(IMAGES, 7), 5), Projection(), resume=path)
    return path

  @pytest.mark.parametrize('size', [7, 10, 60, 1])
  def test_goes_on_and_ends_the_same(self, path, size):
    extractor = Projection()
    resumed = features.stream(in_batches(IMAGES, size), extractor, resume=path)
    assert extractor.seen == 25
    assert_same(resumed, features.stream([IMAGES], Projection()))
    assert list(path.parent.iterdir()) == []

  def test_keeps_the_right_rows(self, tmp_path, monkeypatch):
    monkeypatch.setattr(features, 'SAVE_SECONDS', -1)
    keep, path = np.arange(60) % 7 == 3, tmp_path / 'unfinished.npz'
    with pytest.raises(Interrupted):
      batches = stop_after(in_batches(IMAGES, 7), 5)
      features.stream(batches, Projection(), keep=keep, resume=path)
    resumed = features.stream(in_batches(IMAGES, 9), Projection(), keep=keep, resume=path)
    whole = features.stream([IMAGES], Projection(), keep=keep)
    np.testing.assert_allclose(resumed.kept, whole.kept, rtol=1e-5, atol=1e-6)

  @pytest.mark.parametrize('images', [IMAGES[::-1], IMAGES[:20]])
  def test_other_images_are_refused(self, path, images):
    before = path.read_bytes()
    with pytest.raises(ValueError, match='unfinished.npz is of other images; remove it'):
      features.stream(in_batches(images, 7), Projection(), resume=path)
    assert path.read_bytes() == before

  def test_other_settings_are_refused(self, path):
    extractor = Projection()
    extractor.sha256 = 'def'
    with pytest.raises(ValueError, match='abc.* not .*def.*remove it'):
      features.stream([IMAGES], extractor, resume=path)

  def test_damaged(self, path):
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match='is damaged .*remove it'):
      features.stream([IMAGES], Projection(), resume=path)


def test_progress_is_told_of_every_image(tmp_path, monkeypatch, capsys):
  def stream(batches):
    progress = Progress('features', 60, unit='images', seconds=-1)
    features.stream(batches, Projection(), progress=progress, resume=tmp_path / 'unfinished.npz')

  monkeypatch.setattr(features, 'SAVE_SECONDS', -1)
  with pytest.raises(Interrupted):
    stream(stop_after(in_batches(IMAGES, 7), 5))
  assert 'features: 35/60 images, 0 s, 0 s left' in capsys.readouterr().out
  stream(in_batches(IMAGES, 60))
  counts = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
  assert counts == ['35/60', '60/60']


def test_bad_input():
  with pytest.raises(ValueError, match='no images'):
    features.stream([], Projection())
  extractor = Projection()
  extractor.matrix[3, 3] = np.nan
  with pytest.raises(ValueError, match='NaN'):
    features.stream([IMAGES], extractor)
