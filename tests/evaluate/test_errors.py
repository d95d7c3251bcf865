"""Errors of metrics against the spread of metrics that are drawn again and again."""

import numpy as np
import pytest

from cfg_jax.evaluate import errors, metrics, scoring
from cfg_jax.evaluate.features import Features
from cfg_jax.evaluate.references import Reference
from cfg_jax.evaluate.statistics import Moments

DIM, CLASSES, N, DRAWS = 8, 5, 300, 40
MEANS = np.random.RandomState(0).normal(size=(CLASSES, DIM)) * 1.5
MIX = np.random.RandomState(1).normal(size=(DIM, DIM)) / DIM**0.5


class Extractor:
  name, is_public = 'x', False


def draw(rng, n, labels=None, scale=1.0):
  """Features of n images and their labels, at random unless they are given."""
  labels = rng.integers(CLASSES, size=n) if labels is None else labels
  return np.maximum(MEANS[labels] + scale * rng.normal(size=(n, DIM)) @ MIX, -1), labels


def found(rows):
  """As an extractor would find them, with its features as spatial ones too."""
  logits = -((rows[:, None] - MEANS) ** 2).sum(-1)
  moments = Moments.of(rows)
  return Features(moments, moments, logits, rows, '', rows)


REAL, _ = draw(np.random.default_rng(2), 1000)
MOMENTS = Moments.of(REAL)
REFERENCE = Reference(
  'real', '', MOMENTS.mean, MOMENTS.cov, (MOMENTS.mean, MOMENTS.cov), features=REAL
)

BARE = Reference('real', '', MOMENTS.mean, MOMENTS.cov)  # for the distance and IS alone


@pytest.fixture(autouse=True)
def few_subsets(monkeypatch):
  monkeypatch.setitem(scoring.METRIC_SETTINGS, 'kid_subsets', 2)


def lines(in_turn, count=DRAWS, reference=REFERENCE):
  """Lines of N images each."""
  rng, out = np.random.default_rng(3), []
  fixed = np.arange(N) % CLASSES if in_turn else None
  for _ in range(count):
    rows, labels = draw(rng, N, fixed, 1.3)
    strata = labels if in_turn else None
    here = found(rows)
    out.append(scoring.results(here, reference, Extractor(), labels, in_turn=strata, seed=len(out)))
  return out


@pytest.mark.parametrize('in_turn', [False, True])
def test_every_metric_has_the_error_that_drawing_again_shows(in_turn):
  """Within what 40 draws can show: their spread is known to 11 %."""
  drawn = lines(in_turn)
  assert drawn[0]['errors'].keys() == drawn[0]['metrics'].keys() - {'IS_std', 'KID_std'}
  for name in drawn[0]['errors']:
    true = np.std([line['metrics'][name] for line in drawn], ddof=1)
    told = np.mean([line['errors'][name] for line in drawn])
    most = 2.6 if name in ('recall', 'coverage') else 1.35  # leaving images out can overrate
    assert 0.78 < told / true < most, (name, true, told)


def test_fixed_labels_make_the_distance_surer():
  free, fixed = ([x['errors']['FD-x'] for x in lines(t, 12, BARE)] for t in (False, True))
  assert np.mean(fixed) < 0.92 * np.mean(free)


def test_deviations_have_the_error_as_spread_and_tell_differences():
  rng, pairs, labels = np.random.default_rng(4), [], np.arange(N) % CLASSES
  for seed in range(DRAWS):  # the same noise under another w
    rows, _ = draw(rng, N, labels, 1.3)
    pair = [
      scoring.results(found(x), BARE, Extractor(), in_turn=labels, seed=seed)
      for x in (rows, 1.02 * rows + 0.02)
    ]
    pairs.append(pair)
  for name in ('FD-x', 'IS'):
    spread = [np.std(a['deviations'][name]) / a['errors'][name] for a, _ in pairs]
    np.testing.assert_allclose(np.mean(spread), 1, atol=0.06)
  difference = [b['metrics']['FD-x'] - a['metrics']['FD-x'] for a, b in pairs]
  told = [np.std(np.subtract(b['deviations']['FD-x'], a['deviations']['FD-x'])) for a, b in pairs]
  alone = np.mean([a['errors']['FD-x'] for a, _ in pairs])
  assert 0.75 < np.mean(told) / np.std(difference, ddof=1) < 1.35
  assert np.mean(told) < alone / 3  # far less than two errors in quadrature


def test_resamples_are_of_the_class_and_the_same_for_a_seed():
  labels = np.arange(N) % CLASSES
  drawn = errors.resamples(N, 5, labels)
  assert drawn.shape == (N, errors.REPLICATES)
  np.testing.assert_array_equal(labels[drawn], np.broadcast_to(labels[:, None], drawn.shape))
  np.testing.assert_array_equal(drawn, errors.resamples(N, 5, labels))
  assert (drawn != errors.resamples(N, 6, labels)).any()
  free = errors.resamples(N, 5)
  assert (labels[free] != labels[:, None]).any()
  assert 0.55 < len(np.unique(free[:, 0])) / N < 0.72  # 1 − 1/e


def test_the_score_of_resamples_is_the_score_of_the_resampled_images():
  probs = found(REAL[:50]).probs
  drawn = errors.resamples(50, 0)
  moved = errors.inception_score(probs, drawn, 3, 2020)
  scores = [metrics.inception_score(probs[rows], 3, 2020)[0] for rows in drawn.T]
  np.testing.assert_allclose(moved, scores - np.mean(scores), atol=1e-12)


def test_what_each_image_adds_is_what_is_lost_without_it():
  """Recall and coverage, computed again with each image left out."""
  real, fake = REAL[:400], draw(np.random.default_rng(6), 60, None, 1.3)[0]
  radii2 = (metrics.neighbour_radii2(real, k, 'real') for k in (3, 5))
  got = errors.manifolds(real, fake, 3, 5, *radii2)

  def both(rows):
    return metrics.precision_recall(real, rows, 3)[1], metrics.density_coverage(real, rows, 5)[1]

  whole = both(fake)
  for i in range(len(fake)):
    lost = np.subtract(whole, both(np.delete(fake, i, 0))) * 59
    np.testing.assert_allclose([got['recall'][i], got['coverage'][i]], lost, atol=1e-9)
  assert (got['recall'] < 0).any() and (got['recall'] > 0).any()


def test_of_a_singular_covariance_the_influence_is_that_of_a_small_change():
  """Fewer images than features: against one image's weight being changed by a little."""
  rows, to = draw(np.random.default_rng(5), 6)[0], MOMENTS

  def distance(weights):
    weights = weights / weights.sum()
    mean = weights @ rows
    cov = (weights[:, None] * (rows - mean)).T @ (rows - mean)
    return metrics.frechet_distance(mean, cov, to.mean, to.cov), mean, cov

  even = np.ones(6)
  _, mean, cov = distance(even)
  got = errors.frechet(rows, mean, cov, to.mean, to.cov)
  step = 3e-3  # a singular distance is good to 1e-8, which the quotient divides by it
  for i in range(6):
    up, down = (distance(even + s * step * np.eye(6)[i])[0] for s in (1, -1))
    slope = (up - down) / (2 * step) * 6
    np.testing.assert_allclose(got[i] - got.mean(), slope, rtol=1e-3, atol=1e-3)


def test_a_class_of_one_image_is_no_class():
  values = np.arange(10.0)
  labels = np.r_[np.zeros(9), 1]
  assert errors.standard_error(values, 10, labels) == errors.standard_error(values, 10)
  np.testing.assert_allclose(errors.standard_error(values, 10), np.std(values, ddof=1) / 10**0.5)


@pytest.mark.parametrize('in_turn', [False, True])
def test_weighted_metrics_have_the_error_that_drawing_again_shows(in_turn):
  """Of images of one law, weighted towards another; equal weights are none."""
  rng, fixed = np.random.default_rng(5), np.arange(N) % CLASSES
  values, spread = [], []
  for _ in range(150):
    rows, labels = draw(rng, N, fixed if in_turn else None, 1.3)
    w = np.exp(rows[:, 0])  # known up to a factor, for each class if they are in turn
    if in_turn:
      w /= np.bincount(labels, w)[labels]
    mean, cov = metrics.weighted_moments(rows, w)
    distance = metrics.frechet_distance(mean, cov, MOMENTS.mean, MOMENTS.cov)
    probs = found(rows).probs
    values.append([distance, metrics.inception_score(probs, 1, None, w)[0]])
    influences = (
      errors.frechet(rows, mean, cov, MOMENTS.mean, MOMENTS.cov),
      errors.whole_inception_score(probs, w),
    )
    n, strata = metrics.effective(w), labels if in_turn else None
    spread.append([errors.standard_error(x, n, strata, w) for x in influences])
    assert n < 0.6 * N
  drawn, told = np.std(values, axis=0), np.sqrt(np.mean(np.square(spread), axis=0))
  np.testing.assert_allclose(told, drawn, rtol=0.25)
  equal = np.full(N, 0.3)
  expected = errors.standard_error(influences[0], N, strata)
  assert errors.standard_error(influences[0], N, strata, equal) == pytest.approx(expected)
