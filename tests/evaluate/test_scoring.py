"""Samples from anywhere against references from anywhere, with a small extractor."""

import json

import numpy as np
import pytest

from cfg_jax.evaluate import features, make_reference, metrics, references, scoring
from cfg_jax.evaluate.extractors.digits import DigitsExtractor
from cfg_jax.evaluate.statistics import Moments
from tests import random_inception
from tests.evaluate.test_features import Projection

REAL = random_inception.images(1, 300, 5, 4, 3)
FAKE = random_inception.images(2, 200, 5, 4, 3)


@pytest.fixture
def files(tmp_path, monkeypatch):
  """samples.npz, real.npz (images), ref.npz (mu, sigma), adm.npz (both, and spatial)."""
  monkeypatch.setitem(scoring.METRIC_SETTINGS, 'kid_subset_size', 50)
  np.savez(tmp_path / 'samples.npz', FAKE)
  np.savez(tmp_path / 'real.npz', REAL)
  real = features.stream([REAL], Projection())
  statistics = {'mu': real.moments.mean, 'sigma': real.moments.cov}
  np.savez(tmp_path / 'ref.npz', **statistics)
  spatial = {'mu_s': real.spatial.mean, 'sigma_s': real.spatial.cov}
  np.savez(tmp_path / 'adm.npz', REAL[:100], **statistics, **spatial)
  return tmp_path


def distance(real, fake):
  a, b = features.stream([real], Projection()), features.stream([fake], Projection())
  return metrics.frechet_distance(a.moments.mean, a.moments.cov, b.moments.mean, b.moments.cov)


def test_statistics_alone(files):
  line = scoring.score(files / 'samples.npz', files / 'ref.npz', Projection())
  assert line['metrics'].keys() == {'FD-projection', 'IS', 'IS_std'}
  assert line['metrics']['FD-projection'] == pytest.approx(distance(REAL, FAKE), rel=1e-6)
  assert line['n'] == 200 and line['reference_n'] is None
  assert line['extractor'] == 'projection' and line['extractor_sha256'] == 'abc'
  assert line['samples_sha256'] == features.stream([FAKE], Projection()).fingerprint
  assert json.loads(json.dumps(line)) == line


def test_adm_takes_its_statistics_for_fid_and_its_images_for_the_rest(files):
  line = scoring.score(files / 'samples.npz', files / 'adm.npz', Projection())
  ours = line['metrics']
  assert ours['FD-projection'] == pytest.approx(distance(REAL, FAKE), rel=1e-6)
  real, fake = (features.stream([x], Projection()) for x in (REAL[:100], FAKE))
  found = metrics.precision_recall(real.kept, fake.kept)
  assert sorted([ours['precision'], ours['recall']]) == sorted(found)
  assert (ours['precision'], ours['recall']) == found
  assert (ours['density'], ours['coverage']) == metrics.density_coverage(real.kept, fake.kept)
  whole = features.stream([REAL], Projection()).spatial
  spatial = metrics.frechet_distance(whole.mean, whole.cov, fake.spatial.mean, fake.spatial.cov)
  assert ours['sFD-projection'] == pytest.approx(spatial, rel=1e-5)
  assert 'KID' in ours and 'KID_std' in ours


def test_images_as_reference_and_some_of_the_samples(files):
  line = scoring.score(
    files / 'samples.npz', files / 'real.npz', Projection(), num_samples=120, quantisation='round'
  )
  assert line['metrics']['FD-projection'] == pytest.approx(distance(REAL, FAKE[:120]), rel=1e-6)
  assert line['n'] == 120 and line['reference_n'] == 300 and line['quantisation'] == 'round'


def test_our_reference_gives_what_its_images_give(files):
  made = make_reference.make(files / 'real.npz', files / 'ours.npz', Projection())
  assert made['reference_n'] == 300
  a, b = (
    scoring.score(files / 'samples.npz', files / name, Projection())['metrics']
    for name in ('ours.npz', 'real.npz')
  )
  assert a == pytest.approx(b, rel=1e-9)
  assert a.keys() >= {'KID', 'precision', 'recall', 'density', 'coverage', 'sFD-projection'}
  assert [f.name for f in files.glob('*unfinished*')] == []


def test_kept_rows_are_drawn_from_all(files, monkeypatch):
  monkeypatch.setattr(make_reference, 'KEPT', 60)
  make_reference.make(files / 'real.npz', files / 'ours.npz', Projection())
  kept = references.read(files / 'ours.npz').features
  everything = features.stream([REAL], Projection()).kept
  where = [int(np.abs(everything - row).sum(axis=1).argmin()) for row in kept]
  assert len(set(where)) == 60 and max(where) > 250 and min(where) < 50


class Counting(Projection):
  def __init__(self, **changes):
    super().__init__()
    vars(self).update(changes)


def test_mismatches_are_refused_before_the_samples_are_seen(files):
  make_reference.make(files / 'real.npz', files / 'ours.npz', Projection())
  for changes in ({'sha256': 'def'}, {'name': 'other'}, {'resize': 'half_pixel'}):
    extractor = Counting(**changes)
    with pytest.raises(ValueError, match='samples have .*ours.npz has') as error:
      scoring.score(files / 'samples.npz', files / 'ours.npz', extractor)
    assert '\n' not in str(error.value) and extractor.seen == 1
  make_reference.make(files / 'real.npz', files / 'rounded.npz', Projection(), quantisation='round')
  with pytest.raises(ValueError, match='quantisation: the samples have truncate, .* has round'):
    scoring.score(
      files / 'samples.npz', files / 'rounded.npz', Projection(), quantisation='truncate'
    )
  np.savez(files / 'other.npz', mu=np.zeros(5), sigma=np.eye(5))
  with pytest.raises(ValueError, match='gives 6 features.*other.npz has 5'):
    scoring.score(files / 'samples.npz', files / 'other.npz', Projection())


def test_the_reference_of_a_data_set_is_made_once(tmp_path):
  """Whoever asks again, for the same data and network, reads it; else it is made anew."""

  class Digits(DigitsExtractor):
    seen = 0

    def __call__(self, images):
      self.seen += len(images)
      return super().__call__(images)

  def get(extractor, folder=tmp_path):
    return make_reference.of_dataset('digits', folder, 'train', extractor), extractor.seen

  extractor, other = Digits(), Digits()
  (first, images), (again, no_images) = get(extractor), get(Digits())
  assert (images, no_images) == (1797, 0)
  assert references.provenance(first) == references.provenance(again)
  assert first.sha256 == first.settings['pixels_sha256'] and first.n == 1797
  for name in ('mean', 'cov', 'features'):
    np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
  other.sha256 = 'other'
  assert get(other)[1] == 1797
  (tmp_path / 'read_only').mkdir()
  (tmp_path / 'read_only/references').touch()
  with pytest.raises(
    ValueError, match='cannot be made .* use .*evaluate reference digits --out.*give that file'
  ):
    get(extractor, tmp_path / 'read_only')


def test_names():
  """FID-50k for 50 000 images and the public weights alone."""
  moments = Moments.of(np.random.RandomState(0).normal(size=(500, 6)))
  found = features.Features(moments, moments, np.zeros((500, 3)), np.zeros((500, 6)), '')
  reference = references.of_features('x', found)
  reference = references.Reference(**(vars(reference) | {'features': None}))

  def names(n, **attributes):
    counted = Moments(n, moments.sum * n / 500, moments.outer * n / 500)
    fake = features.Features(counted, counted, found.logits, found.kept, '')
    return scoring.compare(fake, reference, Counting(name='inception', **attributes)).keys()

  assert names(50_000, is_public=True) == {'FID-50k', 'sFID', 'IS', 'IS_std'}
  assert names(49_999, is_public=True) == {'FID', 'sFID', 'IS', 'IS_std'}
  assert names(50_000, is_public=False) == {'FD-inception', 'sFD-inception', 'IS', 'IS_std'}
  assert names(50_000) == {'FD-inception', 'sFD-inception', 'IS', 'IS_std'}


def test_bad_input_overwrites_nothing(files):
  before = {f: f.read_bytes() for f in files.iterdir()}
  good, bad = Projection(), Projection()
  bad.matrix[0, 0] = np.nan
  out = files / 'ref.npz'
  for call, message in (
    (lambda: make_reference.make(files / 'real.npz', out, good), 'ref.npz exists'),
    (lambda: make_reference.make('no_such_data', files / 'x.npz', good), 'no_such_data'),
    (lambda: make_reference.make(files / 'real.npz', files / 'x.npz', bad), 'NaN'),
    (lambda: scoring.score(files / 'none.npz', out, good), 'does not exist'),
    (lambda: scoring.score(files / 'samples.npz', files / 'none.npz', good), 'not exist'),
    (lambda: scoring.score(files / 'samples.npz', out, bad), 'NaN'),
    (
      lambda: make_reference.make(files / 'real.npz', files / 'x.pkl', good),
      'x.pkl must end in .npz',
    ),
    (
      lambda: scoring.score(files / 'samples.npz', out, good, num_samples=201),
      '201 of the 200',
    ),
    (lambda: scoring.score(files / 'samples.npz', out, good, num_samples=9), 'at least 10'),
  ):
    with pytest.raises(ValueError, match=message) as error:
      call()
    assert '\n' not in str(error.value)
  assert {f: f.read_bytes() for f in files.iterdir()} == before


def test_real_digits(tmp_path, data_dir, monkeypatch):
  """The data set against itself and against noise, with the shipped extractor."""
  monkeypatch.setitem(scoring.METRIC_SETTINGS, 'kid_subset_size', 100)
  extractor = DigitsExtractor()
  path = tmp_path / 'digits.npz'
  made = make_reference.make('digits', path, extractor, data_dir=data_dir)
  assert made['dataset'] == 'digits-train' and made['reference_n'] == 1797
  assert references.read(path).settings == {
    'extractor': 'digits',
    'extractor_sha256': extractor.sha256,
    'resize': 'none',
    'quantisation': 'round',
    'dataset': 'digits-train',
    'fingerprint': made['fingerprint'],
    'pixels_sha256': made['pixels_sha256'],
  }
  source = make_reference.dataset_images('digits', data_dir, 'train')[0]
  images = np.concatenate(list(source.batches(500)))
  np.savez(tmp_path / 'same.npz', images)
  noise = np.random.RandomState(0).randint(0, 256, images.shape)
  np.savez(tmp_path / 'noise.npz', noise.astype(np.uint8))
  same, noise = (
    scoring.score(tmp_path / name, path, extractor)['metrics'] for name in ('same.npz', 'noise.npz')
  )
  assert abs(same['FD-digits']) < 1e-4 and same['KID'] <= 0 < noise['KID']
  assert same['precision'] == same['recall'] == same['coverage'] == 1
  assert noise['FD-digits'] > 10 and noise['coverage'] < 0.1
  assert noise['IS'] < same['IS'] < 10
