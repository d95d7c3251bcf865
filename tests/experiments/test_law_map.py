"""The law map at a small size: what it measures, and that it goes on where it was stopped."""

import json

import numpy as np
import pytest

from experiments import law_map

FULL, NARROW = 'ddpm, v = 1', 'ddpm, v = 0.3'


@pytest.fixture
def small(monkeypatch):
  solvers = {name: law_map.SOLVERS[name] for name in (NARROW, FULL)}
  monkeypatch.setattr(law_map, 'SOLVERS', solvers)
  monkeypatch.setattr(law_map, 'STEPS', (8, 128))
  monkeypatch.setattr(law_map, 'N', 1500)
  monkeypatch.setattr(law_map, 'PARTICLES', 1000)
  rules = {'classifier_free': law_map.rules.RULES['classifier_free']}
  monkeypatch.setattr(law_map.rules, 'RULES', rules)


@pytest.mark.slow
def test_guidance_misses_the_tilt_and_particles_do_not(small, tmp_path, monkeypatch):
  found = law_map.measure(tmp_path, 1.0)
  ways = [(rule, solver) for rule in ('classifier_free', 'smc') for solver in (NARROW, FULL)]
  assert list(found) == [(*way, n) for way in ways for n in (128, 8)]
  plain, weighted = (found[rule, FULL, 128] for rule in ('classifier_free', 'smc'))
  # Three classes of so many effective particles, whose deviation is under 1 in each direction.
  noise = 1 / np.sqrt(3 * law_map.PARTICLES * weighted['effective'])
  assert weighted['effective'] > 0.5 and weighted['tilt'] < 3 * noise < plain['tilt']
  assert found['smc', NARROW, 8]['effective'] < 0.01  # steps too long for narrow transitions
  assert found['smc', NARROW, 8]['tilt'] > 0.5
  assert plain['own'] == 0 < found['classifier_free', FULL, 8]['own']
  assert weighted['own'] == weighted['tilt']  # its law is p̃
  text = law_map.table(found)
  assert text.count('\n') == 2 + len(ways) and f'{plain["tilt"]:.3f}' in text
  law_map.write_png(found, 1.0, tmp_path / 'map.png')
  assert (tmp_path / 'map.png').stat().st_size > 20_000
  path = tmp_path / 'cells.jsonl'
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join(lines[:-1]) + lines[-1][:20])  # stopped within a line
  drawn = []
  whole = law_map.draw
  monkeypatch.setattr(law_map, 'draw', lambda *cell: drawn.append(cell) or whole(*cell))
  assert law_map.measure(tmp_path, 1.0) == found
  assert [cell[:3] for cell in drawn] == [('smc', FULL, 128), ('smc', FULL, 8)]  # and its own law
  assert [json.loads(line) for line in path.read_text().splitlines()] == list(found.values())
  assert law_map.measure(tmp_path, 1.0) == found and len(drawn) == 2


def test_quantiles_of_the_tilt():
  """Of p̃ at w = 0, the class itself: a Gaussian's mean and deviation along each direction."""
  x = law_map.tilted(0.0)
  means = law_map.figure2.RADIUS * np.cos(law_map.ANGLES)
  np.testing.assert_allclose(x.mean(axis=0), means, atol=1e-3)
  np.testing.assert_allclose(x.std(axis=0), law_map.figure2.STD, rtol=2e-3)
  assert np.all(np.diff(x, axis=0) >= 0)


def test_projections_are_from_the_class_s_own_direction():
  """The three means are one point, seen from their own classes."""
  x, c = law_map.figure2.MEANS, np.arange(3)
  expected = np.tile(law_map.figure2.RADIUS * np.cos(law_map.ANGLES), (3, 1))
  np.testing.assert_allclose(law_map.projected(x, c), expected, atol=1e-12)
  # a point to the left of one of them, and to the right of another: the signs differ
  left = x[:1] + 0.3 * np.stack([-x[:1, 1], x[:1, 0]], axis=1) / law_map.figure2.RADIUS
  middle = int(np.argmin(np.abs(law_map.ANGLES - np.pi / 2)))
  np.testing.assert_allclose(law_map.projected(left, c[:1])[0, middle], 0.3, atol=1e-12)


def test_another_w_has_cells_of_its_own(small, tmp_path, monkeypatch):
  drawn = []
  monkeypatch.setattr(
    law_map, 'draw', lambda *cell: drawn.append(cell) or (np.zeros((law_map.N, 8)), 1.0)
  )
  monkeypatch.setattr(law_map, 'tilted', lambda w: np.full((law_map.N, 8), w))
  for w in (1.0, 2.0, 1.0):
    assert {line['tilt'] for line in law_map.measure(tmp_path, w).values()} == {w}
  assert len(drawn) == 2 * len(list(law_map.cells()))
