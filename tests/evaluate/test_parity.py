"""Our metrics and network beside the originals themselves: torch-fidelity, pytorch-fid, prdc.

Needs the extra `[parity]`. Without it these tests are skipped, except in CI, where they must run.
"""

import os

import pytest

try:
  from experiments import originals
except ImportError as error:
  if os.environ.get('CI'):
    raise
  pytest.skip(f"needs pip install -e '.[parity]' ({error})", allow_module_level=True)

import jax
import jax.numpy as jnp
import numpy as np
import torch

from cfg_jax.evaluate import metrics
from cfg_jax.evaluate.extractors import inception, resizing
from cfg_jax.nets import torch_file
from tests import random_inception

BOUND = 1e-5  # relative L2 on every tap


@pytest.fixture(scope='module')
def state():
  return random_inception.random_state()


@pytest.fixture(scope='module')
def params(state):
  return inception.params_from(state)


@pytest.fixture(scope='module')
def images():
  return random_inception.images(5, 2, 64, 48, 3)


@pytest.fixture(scope='module')
def torch_fidelity(state, images):
  return originals.torch_fidelity_taps(state, images)


def taps(params, images, how='tf1', scale=None):
  """Compiled anew at every call, so that patched parts count."""

  def all_taps(params, images):
    x = resizing.resize(images.astype(jnp.float32), how)
    return inception.inception(params, resizing.scale(x, scale or how))

  return jax.jit(all_taps)(params, images)


def relative(a, b):
  return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


def test_every_tap_is_torch_fidelitys(params, images, torch_fidelity):
  ours = taps(params, images)
  for name, theirs in torch_fidelity.items():
    assert relative(ours[name], theirs) < BOUND, name


def test_pool3_with_half_pixels_is_pytorch_fids(state, params, images):
  theirs = originals.pytorch_fid_pool3(state, images)
  assert relative(taps(params, images, 'half_pixel')['pool3'], theirs) < BOUND


def test_deliberate_mistakes_fail_the_bound(params, images, torch_fidelity, monkeypatch):
  """Each of the four differences between Inceptions that FID must not have shows."""

  def average_with_padding(x):
    window, ones = (1, 3, 3, 1), (1, 1, 1, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, ones, 'SAME') / 9

  def error(**how):
    return relative(taps(params, images, **how)['pool3'], torch_fidelity['pool3'])

  assert error(how='half_pixel', scale='tf1') > 10 * BOUND
  assert error(how='tf1', scale='half_pixel') > 10 * BOUND
  with monkeypatch.context() as patch:
    patch.setattr(inception, '_avg_pool', average_with_padding)
    assert error() > 10 * BOUND
  original = inception._max_pool
  with monkeypatch.context() as patch:  # the last block's pool as other Inceptions have it
    patch.setattr(
      inception, '_max_pool', lambda x, s=1: original(x, s) if s == 2 else inception._avg_pool(x)
    )
    assert error() > 10 * BOUND
  assert error() < BOUND


@pytest.mark.parametrize('how', ['tf1', 'half_pixel'])
@pytest.mark.parametrize(
  'size', [(1, 1), (8, 8), (17, 33), (32, 32), (64, 64), (128, 96), (299, 299), (301, 513)]
)
def test_resize(how, size):
  """≤ 1e-4 on the scale 0..255, enlarging and reducing, odd sizes too."""
  x = random_inception.images(6, 2, *size, 3).astype(np.float32)
  ours = np.asarray(jax.jit(resizing.resize, static_argnums=1)(x, how))
  assert np.abs(ours - originals.resize(x, how)).max() <= 1e-4


def test_metrics():
  """FD ≤ 1e-8 relative, IS ≤ 1e-10, KID ≤ 1e-6, precision and recall exactly."""
  rng = np.random.RandomState(7)
  real = rng.normal(size=(500, 48)) @ rng.normal(size=(48, 48)) + 3
  fake = 0.8 * rng.normal(size=(400, 48)) @ rng.normal(size=(48, 48)) + 2.5
  logits = 4 * rng.normal(size=(400, 100))
  theirs = originals.metrics(real, fake, logits, kid_subset_size=200)
  compare_metrics(real, fake, logits, 200, theirs)
  assert 0.01 < theirs['precision_recall'][0] < 0.99, 'a case that can tell'


def compare_metrics(real, fake, logits, kid_subset_size, theirs):
  (mu1, cov1), (mu2, cov2) = ((f.mean(axis=0), np.cov(f, rowvar=False)) for f in (real, fake))
  distance = metrics.frechet_distance(mu1, cov1, mu2, cov2)
  assert distance == pytest.approx(theirs['frechet_distance'], rel=1e-8)
  score = metrics.inception_score(metrics.softmax(logits))
  assert score == pytest.approx(theirs['inception_score'], rel=1e-10)
  kid = metrics.kid(real, fake, subset_size=kid_subset_size)
  assert kid == pytest.approx(theirs['kid'], rel=1e-6, abs=1e-12)
  # torch-fidelity takes its means in float32.
  as_float32 = np.float32(metrics.precision_recall(real, fake)).tolist()
  assert as_float32 == [float(np.float32(v)) for v in theirs['precision_recall']]
  assert list(metrics.precision_recall(real, fake, k=5)) == list(theirs['precision_recall_5'])
  density, coverage = metrics.density_coverage(real, fake)
  assert density == pytest.approx(theirs['density_coverage_5'][0], rel=1e-12)
  assert coverage == theirs['density_coverage_5'][1]


def test_torch_files_read_as_torch_reads_them(tmp_path, state):
  """A whole Inception in either format of torch.save, batch counts included."""
  net = originals.torch_fidelity_inception(state)
  theirs = {k: v.numpy() for k, v in net.state_dict().items()}
  for zipped in (True, False):
    path = tmp_path / f'{zipped}.pth'
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zipped)
    ours = torch_file.read(path)
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[k], theirs[k]) for k in theirs)
    assert ours.keys() - state.keys() == {k for k in ours if k.endswith('num_batches_tracked')}
    inception.params_from(ours)


def test_our_writer_of_torch_files_is_read_by_torch(tmp_path, state):
  """So that the quick tests' weight file is what a public one is."""
  random_inception.save(tmp_path / 'weights.pth', state)
  loaded = torch.load(tmp_path / 'weights.pth', weights_only=True)
  assert all(np.array_equal(loaded[k].numpy(), state[k]) for k in state)
