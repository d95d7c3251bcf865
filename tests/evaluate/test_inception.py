"""The Inception network against taps of the originals (golden files), and its extractor."""

import os
import subprocess
import sys

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.evaluate import features, metrics, scoring
from cfg_jax.evaluate.extractors import inception, resizing, weights
from cfg_jax.evaluate.extractors.inception import Inception
from cfg_jax.evaluate.statistics import Moments
from cfg_jax.nets import torch_file
from tests import random_inception
from tests.random_inception import GOLDEN


@pytest.fixture(scope='module')
def golden():
  with np.load(GOLDEN / 'inception_taps.npz') as arrays:
    return dict(arrays)


@pytest.fixture(scope='module')
def params():
  return inception.params_from(random_inception.random_state())


@pytest.fixture(scope='module')
def weight_file(tmp_path_factory):
  path = tmp_path_factory.mktemp('weights') / 'random.pth'
  random_inception.save(path, random_inception.random_state())
  return path


@pytest.fixture(scope='module')
def extractor(weight_file):
  return Inception(weight_file, unknown_weights=True, batch_size=4)


def relative(a, b):
  return np.linalg.norm(a - b) / np.linalg.norm(b)


@jax.jit
def taps(params, images):
  images = images.astype(jnp.float32)
  out = inception.inception(params, resizing.scale(resizing.resize(images, 'tf1'), 'tf1'))
  half = resizing.scale(resizing.resize(images, 'half_pixel'), 'half_pixel')
  return out | {'half_pixel': inception.inception(params, half)['pool3']}


def test_every_tap_is_the_originals(golden, params):
  """≤ 1e-5 relative, torch-fidelity's and pytorch-fid's; the two differ by 1e-2."""
  ours = taps(params, golden['images'])
  for name in ('pool3', 'logits_unbiased', 'logits', 'spatial', 'half_pixel'):
    assert relative(ours[name], golden[name]) < 1e-5, name
  assert relative(golden['half_pixel'], golden['pool3']) > 1e-3


def equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from equations(inner)


def test_every_product_is_of_highest_precision(params):
  """A GPU would take TF32 by default, a TPU bfloat16; a CPU shows neither."""
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), np.uint8)
  traced = jax.make_jaxpr(inception._extract, static_argnums=2)(params, images, 'tf1')
  products = [
    e
    for e in equations(traced.jaxpr)
    if e.primitive.name in ('conv_general_dilated', 'dot_general')
  ]
  assert len(products) == 96, '94 layers, one of them twice, and the last'
  highest = (jax.lax.Precision.HIGHEST,) * 2
  assert all(e.params['precision'] == highest for e in products)


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
def test_the_same_program_lowers_for_accelerators(params, platform):
  extract = jax.jit(inception._extract, static_argnames='how')
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), np.uint8)
  exported = jax.export.export(extract, platforms=[platform])(params, images, how='tf1')
  assert [v.shape for v in exported.out_avals] == [(2, 2048), (2, 1008), (2, 2023)]


class TestResize:
  @pytest.mark.parametrize('size', [8, 33, 64, 299, 301, 640])
  def test_tf1_by_hand(self, size):
    """Pixel i samples at i·n/299 between its neighbours, in both directions."""
    x = random_inception.images(size, 1, size, size, 1).astype(np.float32)
    at = np.arange(299) * (size / 299)
    low = np.floor(at + 1e-5).astype(int)  # float32's grid may round an exact hit down
    high, f = np.minimum(low + 1, size - 1), at - low
    rows = x[0, low, :, 0] * (1 - f)[:, None] + x[0, high, :, 0] * f[:, None]
    exact = rows[:, low] * (1 - f) + rows[:, high] * f
    ours = resizing.resize(jnp.asarray(x), 'tf1')[0, ..., 0]
    # float32's grid is off by up to n·6e-8 of a pixel, against steps of up to 255.
    np.testing.assert_allclose(ours, exact, atol=255 * 4 * size * 6e-8)

  def test_ramps(self):
    """A linear image stays linear: half-pixel centres keep its middle, TF1 shifts it."""
    n = 64
    ramp = jnp.broadcast_to(jnp.arange(n, dtype=jnp.float32)[:, None], (1, n, n))[..., None]
    half = np.asarray(resizing.resize(ramp, 'half_pixel'))[0, :, 0, 0]
    np.testing.assert_allclose(
      half, np.clip((np.arange(299) + 0.5) * n / 299 - 0.5, 0, n - 1), 1e-5
    )
    tf1 = np.asarray(resizing.resize(ramp, 'tf1'))[0, :, 0, 0]
    np.testing.assert_allclose(tf1, np.minimum(np.arange(299) * n / 299, n - 1), 1e-5)
    assert half.mean() == pytest.approx((n - 1) / 2, 1e-4) and tf1.mean() > half.mean() + 0.3

  def test_unknown_name(self):
    with pytest.raises(ValueError, match="resize='bicubic'"):
      resizing.resize(jnp.zeros((1, 8, 8, 3)), 'bicubic')
    with pytest.raises(ValueError, match="resize='bicubic'"):
      Inception('nowhere.pth', resize='bicubic')


class TestPools:
  def test_average_leaves_padding_out(self):
    x = np.random.RandomState(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    ours = np.asarray(inception._avg_pool(jnp.asarray(x)))
    for i in range(5):
      for j in range(7):
        window = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        np.testing.assert_allclose(ours[:, i, j], window.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)

  @pytest.mark.parametrize('stride', [1, 2])
  def test_maximum(self, stride):
    x = -np.random.RandomState(0).uniform(1, 2, size=(2, 9, 7, 3)).astype(np.float32)
    padding = 'SAME' if stride == 1 else 'VALID'
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    exact = jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, strides, padding)
    np.testing.assert_array_equal(inception._max_pool(jnp.asarray(x), stride), exact)


class TestExtractor:
  def test_batches_of_any_size_give_the_same(self, extractor, weight_file):
    """7 images at once and in three ragged shards: ≤ 1e-5; Fréchet distance ≤ 1e-6."""
    images = random_inception.images(2, 7, 24, 24, 3)
    whole = extractor(images)
    assert whole['features'].shape == (7, 2048)
    assert whole['spatial'].shape == (7, 2023) and whole['logits'].shape == (7, 1008)
    parts = [images[:1], images[1:4], images[4:]]
    streamed = features.stream(parts, extractor)
    assert relative(streamed.kept, whole['features']) < 1e-5
    assert relative(streamed.logits, whole['logits']) < 1e-5
    assert streamed.fingerprint == features.stream([images], extractor).fingerprint
    rows = np.split(streamed.kept[:, :6], [1, 4])
    shards = Moments.of(rows[2]) + Moments.of(rows[0]) + Moments.of(rows[1])
    other = Moments.of(np.random.RandomState(0).normal(size=(50, 6)))
    distances = [
      metrics.frechet_distance(m.mean, m.cov, other.mean, other.cov)
      for m in (shards, Moments.of(whole['features'][:, :6]))
    ]
    assert distances[0] == pytest.approx(distances[1], rel=1e-6)

  def test_grey_is_widened_and_said(self, extractor, caplog, monkeypatch):
    monkeypatch.setattr(extractor, '_apply', lambda params, batch, how: {'pixels': batch})
    monkeypatch.setattr(extractor, '_told', False)
    grey = random_inception.images(3, 2, 24, 24, 1)
    with caplog.at_level('INFO'):
      pixels = [extractor(grey)['pixels'] for _ in range(2)]
    np.testing.assert_array_equal(pixels, [np.repeat(grey, 3, axis=-1)] * 2)
    said = [r.getMessage() for r in caplog.records if 'Grey' in r.getMessage()]
    assert said == ['Grey images: their one channel is repeated as red, green and blue.']

  @pytest.mark.parametrize(
    'images',
    [
      np.zeros((2, 24, 24, 3), np.float32),
      np.zeros((2, 24, 24, 4), np.uint8),
      np.zeros((2, 24, 24), np.uint8),
      np.zeros((2, 3, 24, 24), np.uint8),
      np.zeros((0, 24, 24, 3), np.uint8),
    ],
  )
  def test_bad_images(self, extractor, images):
    with pytest.raises(ValueError, match=r'Inception takes uint8 \(N, H, W, 3\)') as error:
      extractor(images)
    assert str(images.shape) in str(error.value)

  def test_other_weights_are_refused_and_never_called_fid(self, extractor, weight_file):
    with pytest.raises(ValueError, match=weights.SHA256) as error:
      Inception(weight_file)
    assert weights.sha256(weight_file) in str(error.value) and '\n' not in str(error.value)
    assert not extractor.is_public and extractor.name == 'inception-unknown'
    assert features.settings(extractor) == {
      'extractor': 'inception-unknown',
      'extractor_sha256': weights.sha256(weight_file),
      'resize': 'tf1',
    }

  def test_other_networks_are_refused(self):
    state = random_inception.random_state()
    for name in ('Mixed_6d.branch7x7_2.bn.weight', 'fc.bias'):
      with pytest.raises(ValueError, match=f'not the FID Inception network.*{name}'):
        inception.params_from({k: v for k, v in state.items() if k != name})
    swapped = state | {'Mixed_7b.branch1x1.conv.weight': state['Mixed_6e.branch1x1.conv.weight']}
    with pytest.raises(ValueError, match='not the FID Inception network') as error:
      inception.params_from(swapped)
    assert '\n' not in str(error.value)


@pytest.mark.slow
def test_eight_devices_give_the_same(weight_file, golden, tmp_path):
  """Features ≤ 1e-5, Fréchet distance ≤ 1e-6 relative, of 12 images in batches of 8."""
  program = (
    'import sys, jax, numpy as np\n'
    'from cfg_jax.evaluate.extractors.inception import Inception\n'
    'extractor = Inception(sys.argv[1], unknown_weights=True, batch_size=8)\n'
    'out = extractor(np.load(sys.argv[2]))\n'
    'np.savez(sys.argv[3], devices=jax.device_count(), **out)\n'
  )
  np.save(tmp_path / 'images.npy', random_inception.images(4, 12, 24, 24, 3))
  out = []
  for devices in (1, 8):
    args = [weight_file, tmp_path / 'images.npy', tmp_path / f'{devices}.npz']
    environment = os.environ | {'JAX_NUM_CPU_DEVICES': str(devices), 'JAX_PLATFORMS': 'cpu'}
    subprocess.run([sys.executable, '-c', program, *args], env=environment, check=True)
    out.append(dict(np.load(args[-1])))
    assert out[-1]['devices'] == devices
  for name in ('features', 'spatial', 'logits'):
    assert relative(out[1][name], out[0][name]) < 1e-5, name
  other = Moments.of(np.random.RandomState(0).normal(size=(50, 6)))
  one, eight = (Moments.of(o['features'][:, :6]) for o in out)
  distances = [metrics.frechet_distance(m.mean, m.cov, other.mean, other.cov) for m in (one, eight)]
  assert distances[0] == pytest.approx(distances[1], rel=1e-6)


# $CFG_JAX_INCEPTION names the public weight file; ADM's sample and reference files lie beside it.
WITH_WEIGHTS = pytest.mark.skipif(
  'CFG_JAX_INCEPTION' not in os.environ, reason='needs the public weights: CFG_JAX_INCEPTION=path'
)
KNOWN_VALUES = {
  ('admnet_guided_upsampled_imagenet256', 'VIRTUAL_imagenet256_labeled'): {
    'FID-50k': 3.94256,
    'sFID': 6.14043,
    'IS': 215.837,
    'precision': 0.8265,
    'recall': 0.5309,
  },
  ('admnet_imagenet64', 'VIRTUAL_imagenet64_labeled'): {'FID-50k': 2.61416},
}


@WITH_WEIGHTS
def test_public_weights_are_known():
  extractor = Inception()
  assert extractor.is_public and extractor.name == 'inception-2015-12-05'
  state = torch_file.read(weights.locate())
  assert sum(v.size for k, v in state.items() if 'num_batches' not in k) == 23_885_392


@WITH_WEIGHTS
@pytest.mark.parametrize('names', KNOWN_VALUES)
def test_known_values_with_the_public_weights(names):
  """What ADM's evaluator printed for its own samples (guided-diffusion, evaluations/README.md)."""
  files = [weights.locate().parent / f'{name}.npz' for name in names]
  if not all(file.is_file() for file in files):
    pytest.skip(f'needs {files[0]} and {files[1]}')
  ours = scoring.score(*files, Inception())['metrics']
  for metric, value in KNOWN_VALUES[names].items():
    # ADM's IS is of unshuffled splits, its precision and recall of float16 distances.
    tolerance = 1e-3 if 'FID' in metric else 1e-2
    assert ours[metric] == pytest.approx(value, rel=tolerance), metric
