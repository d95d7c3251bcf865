"""The paper's three findings, looked for in one's own curves and told in words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cfg_jax.report.curves import Curve
from cfg_jax.report.study import Finding

P_UNCOND = 'method.p_uncond'
METHOD = (
  'Frontiers are compared at equal IS, not at equal w: at each level of IS, the least Fréchet '
  'distance that a curve offers with at least that IS (points of neighbouring w joined by straight '
  'lines), over the range from the lesser IS at which the distance is least to the lesser of the '
  'two largest IS. Each curve is one seed; the distance has no error bar.'
)


class Comparison(NamedTuple):
  """Frontier a against b on the IS that both reach; shares of [low, high], mean FD_a − FD_b."""

  low: float
  high: float
  worse: float
  better: float
  mean_difference: float


def frontier(fd: np.ndarray, inception_score: np.ndarray, levels: np.ndarray) -> np.ndarray:
  """The least FD that a curve offers at an IS of at least each level; inf where it offers none.

  The curve is the polyline through its points (FD, IS) in the order of w, (N,) each.
  """
  fd, score = np.asarray(fd, np.float64), np.asarray(inception_score, np.float64)
  best = np.full(len(levels), np.inf)
  for f, s in zip(fd, score):
    best = np.where(s >= levels, np.minimum(best, f), best)
  for f0, f1, s0, s1 in zip(fd[:-1], fd[1:], score[:-1], score[1:]):
    if s0 != s1:
      t = (levels - s0) / (s1 - s0)
      best = np.where((t >= 0) & (t <= 1), np.minimum(best, f0 + t * (f1 - f0)), best)
  return best


def compare(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> Comparison:
  """Compares the frontiers of two curves (FD, IS), (N,) each, not their values at equal w.

  The range of IS goes from the lesser of the two IS at which FD is least (below it neither
  frontier changes) to the lesser of the two largest IS (above it only one has a frontier).
  """
  low = min(score[np.argmin(fd)] for fd, score in (a, b))
  high = min(np.max(score) for _, score in (a, b))
  levels = np.linspace(low, high, 401)
  difference = frontier(*a, levels) - frontier(*b, levels)
  return Comparison(
    float(low),
    float(high),
    float(np.mean(difference > 0)),
    float(np.mean(difference < 0)),
    float(np.mean(difference)),
  )


def _together(verdicts: Sequence[str]) -> str:
  seen = set(verdicts) - {'untested'}
  return seen.pop() if len(seen) == 1 else 'partly' if seen else 'untested'


def _least(curve: Curve) -> tuple[str, str]:
  fd = curve.values(curve.distance)
  known = np.isfinite(fd)
  w, fd = curve.x[known], fd[known]
  if len(w) < 2:
    return 'untested', f'{curve.distance} is known for {len(w)} value of w: nothing to compare.'
  i = int(np.argmin(fd))
  ends = [f'{fd[j]:.4g} at w = {w[j]:g}' for j in (0, len(w) - 1) if j != i]
  line = f'{curve.distance} is least at w = {w[i]:g}: {fd[i]:.4g}, against {" and ".join(ends)}.'
  if w[i] <= 0:
    return 'no', line
  if 0 < i < len(w) - 1:
    return 'yes', line
  return 'partly', f'{line} It is the {"smallest" if i == 0 else "largest"} w tried.'


def _rises(curve: Curve) -> tuple[str, str]:
  score = curve.values('IS')
  known = np.isfinite(score)
  w, score, std = curve.x[known], score[known], _std(curve)[known]
  if len(w) < 2:
    return 'untested', f'IS is known for {len(w)} value of w: nothing to compare.'
  falls = [j for j in range(len(w) - 1) if score[j + 1] < score[j]]
  line = f'IS goes from {score[0]:.4g} at w = {w[0]:g} to {score[-1]:.4g} at w = {w[-1]:g}'
  if not falls:
    verdict = 'yes' if score[-1] > score[0] else 'no'
    return verdict, line + (' and never falls.' if verdict == 'yes' else ' and stays the same.')
  drops = [score[j] - score[j + 1] for j in falls]
  j = falls[int(np.argmax(drops))]
  within = sum(d <= std[k] for d, k in zip(drops, falls))
  line += (
    f'; it falls on {len(falls)} of {len(w) - 1} steps in w, most from w = {w[j]:g} to '
    f'{w[j + 1]:g} (by {max(drops):.2g}); {within} of them by no more than the standard '
    'deviation over splits.'
  )
  return ('partly' if score[-1] > score[0] else 'no'), line


def _points(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
  fd, score = curve.values(curve.distance), curve.values('IS')
  known = np.isfinite(fd) & np.isfinite(score)
  return fd[known], score[known]


def _std(curve: Curve) -> np.ndarray:
  """The standard deviation of IS over splits at each w, 0 where it is not known."""
  return np.nan_to_num(curve.values('IS_std'))


def _told(c: Comparison, curve: Curve) -> str:
  if 1 in (c.worse, c.better):
    how = f'{"higher" if c.worse else "lower"} throughout, by {abs(c.mean_difference):.3g}'
  else:
    how = f'higher on {c.worse:.0%} and lower on {c.better:.0%}, by {c.mean_difference:+.3g}'
  line = f'at equal IS, from {c.low:.4g} to {c.high:.4g}, {curve.distance} is {how} on average.'
  if c.high - c.low < _std(curve).max():
    line += ' That range is narrower than the standard deviation of IS over splits.'
  return line


def _frontiers(curves: Sequence[Curve], high: float = 0.5) -> tuple[str, list[str]]:
  def others(curve: Curve) -> dict:
    return {k: v for k, v in curve.settings.items() if k not in ('run', P_UNCOND)}

  verdicts, lines = [], []
  for a in curves:
    for b in curves:
      if a.settings[P_UNCOND] != high or b.settings[P_UNCOND] in (high, None):
        continue
      if others(a) != others(b) or min(len(_points(a)[0]), len(_points(b)[0])) < 2:
        continue
      c = compare(_points(a), _points(b))
      if c.worse > 0.5 and c.mean_difference > 0:
        verdicts.append('yes' if c.worse == 1 else 'partly')
      else:
        verdicts.append('no')
      lines.append(f'{a.name} against {b.name}: {_told(c, a)}')
  if not lines:
    lines = [f'There is no pair of curves with p_uncond = {high} and another, otherwise equal.']
  return _together(verdicts), lines


def findings(curves: Sequence[Curve]) -> list[Finding]:
  """The paper's three findings for curves of one data set and one distance."""
  distance = curves[0].distance
  least, rises = [_least(c) for c in curves], [_rises(c) for c in curves]
  worse, frontier_lines = _frontiers(curves)

  def named(results: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(f'{c.name}: {line}' for c, (_, line) in zip(curves, results))

  return [
    Finding(
      f'A little guidance gives the least {distance}',
      'FID is least at w = 0.1 (64×64) and w = 0.3 or 0.4 (128×128), and grows from there.',
      _together([v for v, _ in least]),
      named(least),
    ),
    Finding(
      'IS rises with w',
      'IS rises with every step of w, up to w = 4.',
      _together([v for v, _ in rises]),
      named(rises),
    ),
    Finding(
      'p_uncond = 0.5 has the worse frontier',
      'At every IS, p_uncond = 0.5 pays more FID than 0.1 or 0.2, which are about equal.',
      worse,
      tuple(frontier_lines),
    ),
  ]
