"""Reference files of every program that writes them; malicious and mismatched ones refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cfg_jax.evaluate import references
from cfg_jax.evaluate.features import Features
from cfg_jax.evaluate.statistics import Moments

RNG = np.random.RandomState(0)
F, S = RNG.normal(size=(100, 6)), RNG.normal(size=(100, 4))
MU, SIGMA = F.mean(axis=0), np.cov(F, rowvar=False)
STATISTICS = {'mu': MU, 'sigma': SIGMA}
SETTINGS = {
  'extractor': 'inception-2015-12-05',
  'extractor_sha256': 'abc',
  'resize': 'tf1',
  'quantisation': 'round',
}


def test_npz_with_mu_and_sigma(tmp_path):
  """As TTUR, pytorch-fid and EDM write it."""
  np.savez(tmp_path / 'ref.npz', **STATISTICS)
  reference = references.read(tmp_path / 'ref.npz')
  np.testing.assert_array_equal(reference.mean, MU)
  np.testing.assert_array_equal(reference.cov, SIGMA)
  assert (reference.spatial, reference.features, reference.n, reference.has_images) == (
    *(None, None, None),
    False,
  )
  references.check(reference, SETTINGS, 6)


def test_adm(tmp_path):
  spatial = {'mu_s': S.mean(axis=0), 'sigma_s': np.cov(S, rowvar=False)}
  images = np.zeros((10, 8, 8, 3), np.uint8)
  np.savez(tmp_path / 'ref.npz', arr_0=images, **STATISTICS, **spatial)
  reference = references.read(tmp_path / 'ref.npz')
  assert reference.has_images and references.has_statistics(reference.path)
  np.testing.assert_array_equal(reference.spatial[1], spatial['sigma_s'])
  np.savez(tmp_path / 'samples.npz', images)
  assert not references.has_statistics(tmp_path / 'samples.npz')


# As NumPy 1 wrote EDM2's files: the module was called numpy.core then.
@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('numpy1', [False, True])
def test_edm2(tmp_path, protocol, numpy1):
  content = {'num_images': 100, 'fid': STATISTICS, 'fd_dinov2': {'mu': S[0], 'sigma': S}}
  data = pickle.dumps(content, protocol)
  if numpy1 and protocol == 2:
    data = data.replace(b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n')
  elif numpy1:
    data = data.replace(b'\x8c\x16numpy._core.multiarray', b'\x8c\x15numpy.core.multiarray')
    frame = int.from_bytes(data[3:11], 'little') - 1
    data = data[:3] + frame.to_bytes(8, 'little') + data[11:]
  assert (b'_core' in data) != numpy1
  (tmp_path / 'ref.pkl').write_bytes(data)
  reference = references.read(tmp_path / 'ref.pkl')
  np.testing.assert_array_equal(reference.mean, MU)
  np.testing.assert_array_equal(reference.cov, SIGMA)
  assert reference.n == 100


class Malicious:
  def __init__(self, call):
    self.call = call

  def __reduce__(self):
    return self.call


def test_malicious_pickles_are_refused_not_run(tmp_path):
  target, path = tmp_path / 'executed', tmp_path / 'ref.pkl'
  for call in (
    (Path.touch, (target,)),
    (os.system, (f'touch {target}',)),
    (eval, (f'open({str(target)!r}, "w")',)),
    (np.load, (str(target),)),
  ):
    path.write_bytes(pickle.dumps({'fid': {'mu': MU, 'sigma': Malicious(call)}}))
    with pytest.raises(ValueError, match=r'ref.pkl cannot be used: refused') as error:
      references.read(path)
    assert '\n' not in str(error.value) and not target.exists()
  np.savez(tmp_path / 'ref.npz', mu=np.array([Malicious((Path.touch, (target,)))]), sigma=SIGMA)
  with pytest.raises(ValueError, match='ref.npz cannot be used'):
    references.read(tmp_path / 'ref.npz')
  assert not target.exists()
  path.write_bytes(pickle.dumps({'fid': {'mu': MU, 'sigma': np.array([[None]])}}))
  with pytest.raises(ValueError, match='refused: an array of O'):
    references.read(path)


def write_ours(path, **settings):
  found = Features(Moments.of(F), Moments.of(S), np.zeros((100, 3)), F[:20], 'fingerprint')
  references.write(path, found, SETTINGS | settings)
  return found


def test_ours_comes_back(tmp_path):
  found = write_ours(tmp_path / 'refs' / 'ref.npz')
  reference = references.read(tmp_path / 'refs' / 'ref.npz')
  made = references.of_features('pictures', found)
  for r in (reference, made):
    np.testing.assert_array_equal(r.mean, found.moments.mean)
    np.testing.assert_allclose(r.cov, SIGMA, rtol=1e-10)
    np.testing.assert_array_equal(r.spatial[0], found.spatial.mean)
    np.testing.assert_array_equal(r.features, F[:20])
    assert r.n == 100
  assert reference.settings == SETTINGS
  assert len(reference.sha256) == 64 and made.sha256 == 'fingerprint'
  assert [p.name for p in (tmp_path / 'refs').iterdir()] == ['ref.npz']
  references.check(reference, SETTINGS, 6)


@pytest.mark.parametrize('key', SETTINGS)
def test_mismatch_names_both_sides(tmp_path, key):
  write_ours(tmp_path / 'ref.npz', **{key: 'theirs'})
  reference = references.read(tmp_path / 'ref.npz')
  with pytest.raises(ValueError) as error:
    references.check(reference, SETTINGS, 6)
  for word in (key, SETTINGS[key], 'theirs', 'ref.npz'):
    assert word in str(error.value)
  without = {k: v for k, v in SETTINGS.items() if k != key}
  references.check(reference, without, 6)


def test_another_dimension(tmp_path):
  np.savez(tmp_path / 'ref.npz', **STATISTICS)
  reference = references.read(tmp_path / 'ref.npz')
  with pytest.raises(ValueError, match='inception-2015-12-05 gives 2048 features.*has 6'):
    references.check(reference, SETTINGS, 2048)


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'sigma': SIGMA}, "no 'mu'"),
    ({'mu': MU, 'sigma': SIGMA[:5]}, r'mu is \(6,\) and sigma \(5, 6\)'),
    ({'mu': MU * np.nan, 'sigma': SIGMA}, 'mu is not an array of finite floats'),
    ({'mu': MU, 'sigma': SIGMA.astype(str)}, 'sigma is not an array of finite floats'),
    ({'mu': MU, 'sigma': SIGMA, 'settings': '{'}, 'cannot be used'),
    ({'mu': MU, 'sigma': SIGMA, 'settings': '[1]'}, 'cannot be used'),
    ({'mu': MU, 'sigma': SIGMA, 'features': F[:, :5]}, r'mu is \(6,\) and features \(100, 5\)'),
    ({'mu': MU, 'sigma': SIGMA, 'features': F * np.inf}, 'features is not an array of finite'),
  ],
)
def test_bad_files(tmp_path, arrays, message):
  np.savez(tmp_path / 'ref.npz', **arrays)
  with pytest.raises(
    ValueError, match=f'ref.npz cannot be used: .*{message}' if 'cannot' not in message else message
  ) as error:
    references.read(tmp_path / 'ref.npz')
  assert '\n' not in str(error.value)


def test_damaged_and_missing(tmp_path):
  with pytest.raises(ValueError, match='does not exist'):
    references.read(tmp_path / 'ref.npz')
  np.savez(tmp_path / 'ref.npz', **STATISTICS)
  whole = (tmp_path / 'ref.npz').read_bytes()
  (tmp_path / 'ref.npz').write_bytes(whole[: len(whole) // 2])
  for read in (references.read, references.has_statistics):
    with pytest.raises(ValueError, match=r'ref.npz (cannot be used|is damaged)'):
      read(tmp_path / 'ref.npz')
  data = pickle.dumps({'fid': STATISTICS})
  for damaged in (data[:-40], b'', b'text'):
    (tmp_path / 'ref.pkl').write_bytes(damaged)
    with pytest.raises(ValueError, match='ref.pkl cannot be used'):
      references.read(tmp_path / 'ref.pkl')
