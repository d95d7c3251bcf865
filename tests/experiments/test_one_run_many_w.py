"""One run, many w: where paths are drawn, what they count for, and what is said of them."""

import numpy as np
import pytest

from cfg_jax.evaluate import extractors, features, references
from cfg_jax.evaluate.metrics import effective
from experiments import one_run_many_w as many
from experiments import weighted_paths
from experiments.weighted_paths import FD, IS, Paths, Score, W


class Exact:
  """Paths of one step, N(w, 1): their image is a digit-like one that does not matter."""

  def paths(self, starts):
    rng, n = np.random.default_rng(0), weighted_paths.CHUNK * len(starts)
    source = np.repeat(starts, weighted_paths.CHUNK)
    w, w0 = np.array(W), np.array(W)[source]
    x = 3 * w0 + rng.normal(size=n)  # of N(3 w₀, 1)
    log_w = 0.5 * (x - 3 * w0)[:, None] ** 2 - 0.5 * (x[:, None] - 3 * w) ** 2
    images = np.broadcast_to(np.uint8(x)[:, None, None, None, None], (n, len(W), 8, 8, 1))
    return Paths(images, np.arange(n) % 10, log_w, source, 2.0 * len(starts))


def test_paths_are_drawn_where_they_are_fewest_until_every_w_has_enough(capsys):
  starts, paths = weighted_paths.choose(Exact(), 300)
  assert starts[:2] == [20, 0] and len(paths.labels) == weighted_paths.CHUNK * len(starts)
  found = paths.effective()
  assert found.min() >= 300 > Exact().paths(starts[:-1]).effective().min()
  assert len(starts) < len(W) / 2
  assert paths.calls == 22 * len(paths.labels)
  weights = paths.weights(7)  # of each class as much
  np.testing.assert_allclose(np.bincount(paths.labels, weights), len(weights) / 10)
  x = paths.images[:, 7, 0, 0, 0]
  assert effective(weights) == pytest.approx(found[7]) and np.average(x, weights=weights) < 4


def test_a_score_is_as_of_n_images():
  """On the line over 1/n through all and halves, of each class as many."""
  rng, extractor, n = np.random.default_rng(0), extractors.make('digits'), 1200
  images, labels = np.uint8(rng.integers(0, 256, (n, 8, 8, 1))), np.arange(n) % 10
  found = features.stream([np.uint8(rng.integers(0, 256, (2000, 8, 8, 1)))], extractor)
  reference = references.of_features('real', found)

  def score(n, rows):
    weights = np.ones(len(labels[rows]))
    given = images[rows], labels[rows], weights, extractor, reference
    found = weighted_paths.score(*given, n)
    return np.array([found.metrics[k][0] for k in (FD, IS)]), found.effective

  turn = np.arange(n) // 10 % 2
  halves = np.mean([score(n // 2, turn == k)[0] for k in (0, 1)], axis=0)
  whole, effective = score(n, slice(None))
  assert effective == pytest.approx(n) and halves[0] > 1.5 * whole[0]
  np.testing.assert_allclose(score(n // 2, slice(None))[0], halves, rtol=1e-6)
  between = whole + (halves - whole) * (n / 800 - 1)
  np.testing.assert_allclose(score(800, slice(None))[0], between, rtol=1e-6)


def test_a_class_counts_for_as_much_however_many_of_its_images_are_looked_at():
  weights, labels = np.array([1.0, 3, 2, 0, 0]), np.array([0, 0, 1, 1, 1])
  found = weighted_paths.in_turn(weights, labels)
  np.testing.assert_allclose(found, [0.625, 1.875, 2.5, 0, 0])
  np.testing.assert_allclose(weighted_paths.in_turn(weights[:3], labels[:3]), 0.6 * found[:3])


def found_of(paths):
  """Direct runs that say what the paths do, but for w = 1, and errors of 0.3."""
  w = np.array(W)
  curve = [Score({FD: (9 + (x - 0.3) ** 2, 0.3), IS: (9 + x / 9, 0.3)}, 1200.0) for x in w]

  def direct(x):
    score = curve[W.index(x)].metrics
    off = {FD: (score[FD][0] + (x == 1.0), 0.3), IS: score[IS]}
    return many.Direct([Score(off, 1000.0)] * 3, 3.0 if x else 1.5)

  return many.Found(1000, paths, curve, {x: direct(x) for x in many.COMPARED})


def test_what_is_said(tmp_path):
  found = found_of(Exact().paths([20, 0, 40]))
  assert many.cost(found) == (81 * 11 * 1000, 121.5)
  assert many.apart(found, 1.0, FD) == pytest.approx(-1 / (0.3 * np.sqrt(4 / 3)))
  said = many.findings(found)
  assert said[0].startswith('1200 paths of 3 w₀ (400 at 0, 400 at 2, 400 at 4) give')
  assert '26400 for 891000' in said[1] and '33.8 times fewer' in said[1]
  assert said[1].endswith('took 6.0 s for 121.5, 20.2 times less.')
  assert said[2] == 'Least FD-digits: 9.00 ± 0.30 at w = 0.3.'
  assert said[3].startswith('FD-digits is 2.9 errors') and 'w = 1; -0.6 on average' in said[3]
  assert said[4].startswith('IS is 0.0 errors') and said[4].endswith(
    '1.00 times that of one direct run.'
  )
  assert said[6].startswith('Of 400 paths at w₀ = 2 alone, the effective share is 0.9')
  assert many.table(found).count('\n') == 2 + len(many.COMPARED)
  many.draw(found, tmp_path / 'x.png')
  assert (tmp_path / 'x.png').stat().st_size > 20_000
