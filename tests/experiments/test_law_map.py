"""The law map at a small size: what it measures, and that it goes on where it was stopped."""

import numpy as np
import pytest

from experiments import law_map


@pytest.fixture
def small(monkeypatch):
  monkeypatch.setattr(law_map, 'SOLVERS', {'ddpm': law_map.SOLVERS['ddpm']})
  monkeypatch.setattr(law_map, 'STEPS', (8, 128))
  monkeypatch.setattr(law_map, 'N', 1500)
  monkeypatch.setattr(law_map, 'PARTICLES', 1000)
  rules = {'classifier_free': law_map.rules.RULES['classifier_free']}
  monkeypatch.setattr(law_map.rules, 'RULES', rules)


@pytest.mark.slow
def test_guidance_misses_the_tilt_and_particles_do_not(small, tmp_path, monkeypatch):
  found = law_map.measure(tmp_path, 1.0)
  assert list(found) == [(r, 'ddpm', n) for r in ('classifier_free', 'smc') for n in (128, 8)]
  plain, weighted = (found[r, 'ddpm', 128] for r in ('classifier_free', 'smc'))
  assert plain['own'] == weighted['own'] == 0 < found['smc', 'ddpm', 8]['own']
  assert weighted['tilt'] < 0.06 < 0.15 < plain['tilt']
  text = law_map.table(found)
  assert text.count('\n') == 4 and f'{plain["tilt"]:.3f}' in text
  law_map.write_png(found, 1.0, tmp_path / 'map.png')
  path = tmp_path / 'cells.jsonl'
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join(lines[:1]) + lines[1][:20])  # stopped within a line
  assert law_map.measure(tmp_path, 1.0) == found
  monkeypatch.setattr(law_map, 'draw', None)
  assert law_map.measure(tmp_path, 1.0) == found


def test_quantiles_of_the_tilt():
  """Of p̃ at w = 0, the class itself: the mean and the deviation of its Gaussian."""
  x = law_map.tilted(0.0)
  assert x.mean() == pytest.approx(law_map.figure2.RADIUS, abs=1e-3)
  assert x.std() == pytest.approx(law_map.figure2.STD, rel=2e-3)
  assert np.all(np.diff(x) >= 0)
