"""The metrics against closed forms and brute force."""

import numpy as np
import pytest

from cfg_jax.evaluate import metrics
from tests.random_inception import GOLDEN


def spd(rng, dim, condition=1e3):
  q, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
  return q * np.geomspace(1, 1 / condition, dim) @ q.T


class TestFrechetDistance:
  def test_diagonal_gaussians_closed_form(self):
    """For commuting covariances it is |Δμ|² + Σ (√λ1 − √λ2)²."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    l1, l2 = rng.uniform(0.1, 2, 20), rng.uniform(0.1, 2, 20)
    mu1, mu2 = rng.normal(size=(2, 20))
    exact = np.sum((mu1 - mu2) ** 2) + np.sum((np.sqrt(l1) - np.sqrt(l2)) ** 2)
    ours = metrics.frechet_distance(mu1, q * l1 @ q.T, mu2, q * l2 @ q.T)
    assert ours == pytest.approx(exact, rel=1e-12)

  def test_general_covariances_against_sqrtm(self):
    import scipy.linalg

    rng = np.random.default_rng(1)
    s1, s2 = spd(rng, 30), spd(rng, 30)
    mu1, mu2 = rng.normal(size=(2, 30))
    root = scipy.linalg.sqrtm(s1 @ s2).real
    exact = np.sum((mu1 - mu2) ** 2) + np.trace(s1) + np.trace(s2) - 2 * np.trace(root)
    assert metrics.frechet_distance(mu1, s1, mu2, s2) == pytest.approx(exact, rel=1e-10)

  def test_invariants(self):
    rng = np.random.default_rng(2)
    s1, s2, (mu1, mu2) = spd(rng, 16), spd(rng, 16), rng.normal(size=(2, 16))
    d = metrics.frechet_distance(mu1, s1, mu2, s2)
    assert metrics.frechet_distance(mu2, s2, mu1, s1) == pytest.approx(d, rel=1e-12)
    assert metrics.frechet_distance(3 * mu1, 9 * s1, 3 * mu2, 9 * s2) == pytest.approx(9 * d)
    assert abs(metrics.frechet_distance(mu1, s1, mu1, s1)) < 1e-12

  def test_singular_covariances(self):
    """Rank 1 against the identity: Tr (Σ1Σ2)^½ = |a|; null eigenvalues' rounding costs digits."""
    a = np.arange(1.0, 6.0)
    d = metrics.frechet_distance(np.zeros(5), np.outer(a, a), np.zeros(5), np.eye(5))
    assert d == pytest.approx(a @ a + 5 - 2 * np.linalg.norm(a), rel=1e-7)

  def test_bad_input(self):
    with pytest.raises(ValueError, match=r'sigma2 has shape \(3, 3\)'):
      metrics.frechet_distance(np.zeros(4), np.eye(4), np.zeros(4), np.eye(3))
    with pytest.raises(ValueError, match='mu2 has NaN'):
      metrics.frechet_distance(np.zeros(2), np.eye(2), np.array([0, np.nan]), np.eye(2))


class TestInceptionScore:
  def test_extremes(self):
    """K for confident, balanced predictions; 1 where every image gets the same p."""
    one_hot = np.eye(8)[np.arange(160) % 8]
    assert metrics.inception_score(one_hot, splits=1) == pytest.approx((8, 0), abs=1e-12)
    same = np.tile(metrics.softmax(np.arange(8.0)[None]), (50, 1))
    assert metrics.inception_score(same) == pytest.approx((1, 0), abs=1e-12)

  def test_two_classes_by_hand(self):
    """KL of (1, 0) and (.5, .5) against their mean (.75, .25)."""
    kl = (np.log(1 / 0.75) + 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)) / 2
    mean, std = metrics.inception_score([[1, 0], [0.5, 0.5]], splits=1)
    assert (mean, std) == pytest.approx((np.exp(kl), 0))

  def test_order_matters_unless_shuffled(self):
    """Sorted by class, each of the 10 splits sees one class of 10: IS is 1, not 10."""
    one_hot = np.eye(10)[np.repeat(np.arange(10), 200)]
    assert metrics.inception_score(one_hot, shuffle_seed=None)[0] == pytest.approx(1)
    mean, std = metrics.inception_score(one_hot, shuffle_seed=0)
    assert 9.5 < mean < 10 and 0 < std < 0.2
    assert (mean, std) == metrics.inception_score(one_hot, shuffle_seed=0)
    assert (mean, std) != metrics.inception_score(one_hot, shuffle_seed=1)

  def test_std_is_the_population_one_over_splits(self):
    one_hot = np.eye(4)[[0, 1, 0, 1, 2, 2]]
    mean, std = metrics.inception_score(one_hot, splits=3, shuffle_seed=None)
    assert (mean, std) == pytest.approx((np.mean([2, 2, 1]), np.std([2, 2, 1])))

  def test_bad_input(self):
    with pytest.raises(ValueError, match='softmax'):
      metrics.inception_score(np.random.default_rng(0).normal(size=(20, 5)))
    with pytest.raises(ValueError, match='splits=10'):
      metrics.inception_score(np.eye(5))
    with pytest.raises(ValueError, match='softmax'):
      metrics.inception_score(np.full((20, 5), np.nan))


class TestKid:
  def test_mmd2_brute_force(self):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))

    def k(a, b):
      return (a @ b / 3 + 1) ** 3

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert metrics.polynomial_mmd2(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-12)

  def test_unbiased(self):
    """The mean over small subsets of one distribution is 0 within its error; FID's would be > 0."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4000, 8))
    mean, std = metrics.kid(x, y, subsets=200, subset_size=50)
    assert abs(mean) < 4 * std / np.sqrt(200)
    shifted, _ = metrics.kid(x, y + 0.5, subsets=200, subset_size=50)
    assert shifted > 4 * std / np.sqrt(200)

  def test_whole_set_has_no_spread(self):
    x, y = np.random.default_rng(0).normal(size=(2, 40, 4))
    mean, std = metrics.kid(x, y, subsets=3, subset_size=40)
    assert mean == pytest.approx(metrics.polynomial_mmd2(x, y)) and std < 1e-12

  def test_bad_input(self):
    with pytest.raises(ValueError, match='subset_size from 2 to 40'):
      metrics.kid(np.zeros((40, 2)), np.zeros((50, 2)))
    with pytest.raises(ValueError, match='fake has NaN'):
      metrics.kid(np.zeros((4, 2)), np.full((4, 2), np.nan), subset_size=4)


def brute_distances(x, y):
  return np.linalg.norm(x[:, None] - y[None], axis=-1)


class TestManifolds:
  @pytest.mark.parametrize('k', [1, 3, 5])
  def test_brute_force(self, k, monkeypatch):
    monkeypatch.setattr(metrics, '_BLOCK_ROWS', 16)  # several ragged blocks
    rng = np.random.default_rng(k)
    real, fake = rng.normal(size=(70, 4)), rng.normal(size=(50, 4)) * 1.2 + 0.5

    def radii(x):
      return np.sort(brute_distances(x, x), axis=1)[:, k]  # column 0 is the point itself

    d = brute_distances(real, fake)
    in_real = d <= radii(real)[:, None]
    precision, recall = metrics.precision_recall(real, fake, k)
    assert precision == in_real.any(axis=0).mean()
    assert recall == (d <= radii(fake)).any(axis=1).mean()
    density, coverage = metrics.density_coverage(real, fake, k)
    assert density == pytest.approx(in_real.sum() / (k * 50), rel=1e-15)
    assert coverage == in_real.any(axis=1).mean()
    assert 0 < precision < 1 and 0 < recall < 1 and 0 < coverage < 1

  def test_dropped_mode_and_invented_mode(self):
    """Fakes in one of two real modes: precise, half recalled; the other way round: half precise."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200, 2))
    two_modes = np.concatenate([a, b + 100])
    one_mode = rng.normal(size=(200, 2))
    precision, recall = metrics.precision_recall(two_modes, one_mode)
    assert precision > 0.9 and 0.4 < recall < 0.52
    precision, recall = metrics.precision_recall(one_mode, two_modes)
    assert 0.4 < precision < 0.52 and recall > 0.9
    assert metrics.density_coverage(two_modes, one_mode)[1] <= 0.5

  def test_bad_input(self):
    with pytest.raises(ValueError, match='k=3 neighbours among 3 real'):
      metrics.precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))
    with pytest.raises(ValueError, match='one extractor'):
      metrics.density_coverage(np.zeros((9, 2)), np.zeros((9, 3)))


def test_golden_numbers_of_the_originals():
  """What torch-fidelity and prdc gave for these features (tests/golden/make.py)."""
  with np.load(GOLDEN / 'metrics.npz') as arrays:
    golden = dict(arrays)
  real, fake = golden['real'], golden['fake']
  (mu1, cov1), (mu2, cov2) = (
    (f.mean(axis=0, dtype=np.float64), np.cov(f, rowvar=False)) for f in (real, fake)
  )
  distance = metrics.frechet_distance(mu1, cov1, mu2, cov2)
  assert distance == pytest.approx(golden['frechet_distance'], rel=1e-8)
  score = metrics.inception_score(metrics.softmax(golden['logits']))
  assert score == pytest.approx(golden['inception_score'], rel=1e-10)
  assert metrics.kid(real, fake, subset_size=50) == pytest.approx(golden['kid'], rel=1e-6)
  # torch-fidelity takes its means in float32.
  assert metrics.precision_recall(real, fake) == pytest.approx(golden['precision_recall'], rel=1e-7)
  assert metrics.precision_recall(real, fake, k=5) == tuple(golden['precision_recall_5'])
  assert metrics.density_coverage(real, fake) == pytest.approx(golden['density_coverage_5'])


@pytest.mark.parametrize('n', (60, 700))
def test_kid_is_the_mean_over_its_subsets_however_they_are_computed(n):
  """Few images share one kernel matrix, many are taken subset by subset: the same numbers."""
  rng = np.random.default_rng(0)
  real, fake = rng.random((n, 8)), rng.random((n - 10, 8))
  draw = np.random.RandomState(2020)
  values = []
  for _ in range(50):
    x = fake[draw.choice(n - 10, 40, replace=False)]
    values.append(metrics.polynomial_mmd2(x, real[draw.choice(n, 40, replace=False)]))
  mean, std = metrics.kid(real, fake, subsets=50, subset_size=40)
  np.testing.assert_allclose((mean, std), (np.mean(values), np.std(values)), rtol=1e-8)


class TestWeights:
  """Images that count for several, or in part."""

  def test_a_weight_is_how_often_an_image_is_there(self):
    rng = np.random.default_rng(0)
    f, probs = rng.normal(size=(40, 5)), metrics.softmax(rng.normal(size=(40, 6)) * 2)
    weights = rng.integers(0, 4, 40)
    mean, cov = metrics.weighted_moments(f, weights)
    again = np.repeat(f, weights, axis=0)
    np.testing.assert_allclose(mean, again.mean(axis=0), rtol=1e-12)
    effective = metrics.effective(weights)
    assert effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), rel=1e-12)
    biased = np.cov(again, rowvar=False, bias=True)
    np.testing.assert_allclose(cov, biased / (1 - 1 / effective), rtol=1e-12)
    score = metrics.inception_score(probs, 1, None, weights)
    assert score == pytest.approx(
      metrics.inception_score(np.repeat(probs, weights, axis=0), 1, None), rel=1e-12
    )

  def test_equal_weights_are_none(self):
    rng = np.random.default_rng(1)
    f, probs = rng.normal(size=(30, 4)), metrics.softmax(rng.normal(size=(30, 6)))
    equal = np.full(30, 0.7)
    mean, cov = metrics.weighted_moments(f, equal)
    np.testing.assert_allclose(mean, f.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(f, rowvar=False), rtol=1e-12)
    assert metrics.effective(equal) == pytest.approx(30, rel=1e-12)
    expected = metrics.inception_score(probs, 3)
    assert metrics.inception_score(probs, 3, weights=equal) == pytest.approx(expected, rel=1e-12)

  def test_parts_keep_their_own_images_weights(self):
    one_hot = np.eye(2)[[0, 1, 0, 1]]
    p = np.array([0.75, 0.25])
    expected = np.mean([np.exp(metrics.entropy(p)), 2])
    found = metrics.inception_score(one_hot, 2, None, np.array([3.0, 1.0, 2.0, 2.0]))
    assert found[0] == pytest.approx(expected, rel=1e-12)
