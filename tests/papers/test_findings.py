"""The paper's findings, as found in curves: the verdicts and the comparison of frontiers."""

import numpy as np

from cfg_jax.papers.cfg import findings
from cfg_jax.papers.cfg import tables as paper
from cfg_jax.report.curves import Curve


def curve(w, fd, score, name='curve', p_uncond=0.1, distance='FID', **settings):
  """A curve as `curves` makes it."""
  metrics = {distance: fd, 'IS': score, 'IS_std': np.zeros(len(w))}
  settings = {'run': name, 'method.p_uncond': p_uncond} | settings
  metrics = {k: np.array(v, float) for k, v in metrics.items()}
  return Curve(name, settings, distance, np.array(w, float), metrics)


def of_paper(dataset):
  return [
    curve(p.w, p.fid, p.inception_score, f'{p.value:g}', **{p.table.field: p.value})
    for p in paper.curves(dataset)
  ]


def test_the_paper_has_its_own_findings():
  table1, table2 = of_paper('imagenet64'), of_paper('imagenet128')
  assert [f.verdict for f in findings.findings(table1)] == ['yes', 'yes', 'yes']
  assert [f.verdict for f in findings.findings(table2)] == ['yes', 'yes', 'untested']
  best = [c.x[np.argmin(c.values('FID'))] for c in table1 + table2]
  assert best == [0.1, 0.1, 0.1, 0.4, 0.3, 0.3]
  # At equal w ≥ 0.3, p_uncond = 0.5 has the lower FID: only frontiers show it worse.
  low, _, high = table1
  assert (high.values('FID')[3:] < low.values('FID')[3:]).all()
  compared = findings.compare(*([c.values(k) for k in ('FID', 'IS')] for c in (high, low)))
  assert compared.worse == 1 and compared.mean_difference > 0


def test_findings_come_out_the_other_way_where_the_data_does():
  w = [0, 1, 2]
  good = curve(w, [3, 1, 2], [1, 2, 3], 'good', 0.5)
  bad = curve(w, [4, 5, 6], [3, 2, 1], 'bad', 0.1)
  assert [f.verdict for f in findings.findings([bad])] == ['no', 'no', 'untested']
  assert [f.verdict for f in findings.findings([good, bad])] == ['partly', 'partly', 'no']
  falling = findings.findings([curve(w, [3, 2, 1], [1, 3, 2])])
  assert [f.verdict for f in falling] == ['partly', 'partly', 'untested']
  assert 'largest w tried' in falling[0].lines[0]
  assert 'falls on 1 of 2 steps in w, most from w = 1 to 2 (by 1)' in falling[1].lines[0]


def test_findings_are_those_of_the_values_that_are_known():
  nan = float('nan')
  gaps = curve([0, 1, 2, 3, 4], [3, nan, 1, 5, 6], [1, 2, nan, 3, nan])
  least, rises, _ = findings.findings([gaps])
  assert (least.verdict, rises.verdict) == ('yes', 'yes')
  assert (
    'least at w = 2: 1, against 3 at w = 0 (more by 2) and 6 at w = 4 (more by 5).'
    in least.lines[0]
  )
  assert 'IS goes from 1 at w = 0 to 3 at w = 3 (more by 2) and never falls' in rises.lines[0]


def test_frontiers_are_compared_only_where_all_else_is_equal():
  w = [0, 1]
  a, b = curve(w, [1, 2], [1, 2], 'a', 0.5, T=32), curve(w, [2, 3], [1, 2], 'b', 0.1, T=64)
  assert findings.findings([a, b])[2].verdict == 'untested'
  assert findings.findings([a, b._replace(settings=b.settings | {'T': 32})])[2].verdict == 'no'


def test_frontier_of_a_line_and_of_a_bent_curve():
  levels = np.array([0.0, 10.0, 15.0, 20.0, 20.1])
  line = findings.frontier(np.array([1.0, 3.0]), np.array([10.0, 20.0]), levels)
  np.testing.assert_allclose(line, [1, 1, 2, 3, np.inf])
  # FD falls and rises again: below the turn the least FD holds; IS that falls back adds nothing.
  bent = findings.frontier(
    np.array([4.0, 2.0, 6.0, 9.0]), np.array([0.0, 12.0, 20.0, 15.0]), levels
  )
  np.testing.assert_allclose(bent, [2, 2, 3.5, 6, np.inf])


def test_comparison_of_shifted_equal_and_crossing_frontiers():
  fd, score = np.array([1.0, 3.0]), np.array([10.0, 20.0])
  assert findings.compare((fd, score), (fd, score)) == (10, 20, 0, 0, 0)
  np.testing.assert_allclose(findings.compare((fd + 1, score), (fd, score)), (10, 20, 1, 0, 1))
  steep = np.array([0.0, 4.0])  # lower below IS 15, higher above it
  crossing = findings.compare((steep, score), (fd, score))
  np.testing.assert_allclose(crossing, (10, 20, 0.5, 0.5, 0), atol=2e-3)
  # The shared range ends where the first frontier does.
  assert findings.compare((fd, score), (fd, score - 4))[:2] == (6, 16)
  # And it starts where FD is least: what lies below is on no frontier.
  bent = (np.array([4.0, 2.0, 6.0]), np.array([0.0, 12.0, 20.0]))
  mean = (1.25 * 1 + 1.5 * 7) / 8  # 1 to 1.5 from 12 to 13, where the other is still flat; then 1.5
  got = findings.compare(bent, (bent[0] - 1, bent[1] + 1))
  np.testing.assert_allclose(got, (12, 20, 1, 0, mean), atol=2e-3)
