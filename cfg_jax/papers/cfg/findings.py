"""The paper's three findings, looked for in one's own curves and told in words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cfg_jax.report import noise
from cfg_jax.report.curves import Curve
from cfg_jax.report.noise import Difference
from cfg_jax.report.study import Finding
from cfg_jax.report.told import told

P_UNCOND = 'method.p_uncond'
SEEDS = ('seed', 'sample.seed')
UNKNOWN = ' (No errors are recorded.)'
METHOD = (
  '± is one standard error: over seeds where a curve is the mean of several, else over the '
  'samples, as they would be drawn again from other noise. “Within noise” is what is less than '
  'about two errors of the difference itself (95 %; more where it is the largest of several): of '
  'points from one noise, that is far less than their two errors together. The bias that a Fréchet '
  'distance has with few samples is in no error; it is alike at equal n. '
  'Frontiers are compared at equal IS, not at equal w, and for the same sampler: at each level of '
  'IS, the least Fréchet distance that a curve offers with at least that IS (points of '
  'neighbouring w joined by straight lines), over the range from the lesser IS at which the '
  'distance is least to the lesser of the two largest IS.'
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
  if seen == {'noise', 'no'}:
    return 'no'
  return seen.pop() if len(seen) == 1 else 'partly' if seen else 'untested'


def _by(d: Difference) -> str:
  """How large a difference is, and whether that is noise."""
  if not d.known:
    return f'{abs(d.value):.3g}'
  return told(abs(d.value), d.error) + ('' if d.clear else ', within noise')


def _at(curve: Curve, metric: str, i: int) -> str:
  return told(curve.values(metric)[i], curve.error(metric)[i])


def _least(curve: Curve) -> tuple[str, str]:
  metric, w = curve.distance, curve.x
  fd = curve.values(metric)
  known = np.flatnonzero(np.isfinite(fd)).tolist()
  if len(known) < 2:
    return 'untested', f'{metric} is known for {len(known)} value of w: nothing to compare.'
  least = min(known, key=lambda j: fd[j])
  more = dict(
    zip(
      others := [j for j in known if j != least],
      noise.differences(curve, metric, [(j, least) for j in others]),
    )
  )
  ends = [j for j in (known[0], known[-1]) if j != least]
  if w[least] <= 0:
    ends = [min((j for j in others if w[j] > 0), key=lambda j: more[j].value, default=others[0])]
  against = [f'{_at(curve, metric, j)} at w = {w[j]:g} (more by {_by(more[j])})' for j in ends]
  line = f'{metric} is least at w = {w[least]:g}: {_at(curve, metric, least)}, against '
  line += f'{" and ".join(against)}.'
  line += '' if all(d.known for d in more.values()) else UNKNOWN
  if w[least] <= 0:
    near = [j for j in others if w[j] > 0 and not more[j].clear]
    return ('noise' if near else 'no'), line
  if least == known[0]:
    return 'partly', f'{line} It is the smallest w tried.'
  if not more[known[0]].clear:
    return 'noise', line
  if least == known[-1]:
    return 'partly', f'{line} It is the largest w tried.'
  return ('yes' if more[known[-1]].clear else 'partly'), line


def _rises(curve: Curve) -> tuple[str, str]:
  score, w = curve.values('IS'), curve.x
  known = np.flatnonzero(np.isfinite(score)).tolist()
  if len(known) < 2:
    return 'untested', f'IS is known for {len(known)} value of w: nothing to compare.'
  first, last = known[0], known[-1]
  [whole] = noise.differences(curve, 'IS', [(last, first)])
  steps = noise.differences(curve, 'IS', list(zip(known[1:], known)))
  line = f'IS goes from {_at(curve, "IS", first)} at w = {w[first]:g} to '
  line += f'{_at(curve, "IS", last)} at w = {w[last]:g} '
  line += f'({"more" if whole.value > 0 else "less"} by {_by(whole)})' if whole.value else '(alike)'
  falls = [j for j, d in enumerate(steps) if d.value < 0]
  if not falls:
    verdict = 'noise' if whole.known and not whole.clear else 'yes' if whole.value > 0 else 'no'
    return verdict, line + (' and never falls.' if whole.value > 0 else '.')
  clear = [j for j in falls if steps[j].clear]
  beyond = f'{len(clear)} of them by more than noise, ' if whole.known else ''
  most = min(clear or falls, key=lambda j: steps[j].value)
  line += (
    f'; it falls on {len(falls)} of {len(steps)} steps in w, {beyond}most from '
    f'w = {w[known[most]]:g} to {w[known[most + 1]]:g} (by {_by(steps[most])}).'
  ) + ('' if whole.known else UNKNOWN)
  if not whole.clear:
    return 'noise', line
  if whole.value < 0:
    return 'no', line
  return ('partly' if clear else 'yes'), line


def _points(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
  fd, score = curve.values(curve.distance), curve.values('IS')
  known = np.isfinite(fd) & np.isfinite(score)
  return fd[known], score[known]


def _moved(curve: Curve) -> list[tuple[np.ndarray, np.ndarray]] | None:
  """The points of a curve as redrawn sets would have them; None where that is not known."""
  metrics = curve.distance, 'IS'
  if not {*metrics} <= curve.deviations.keys():
    return None
  known = np.isfinite(curve.values(metrics[0])) & np.isfinite(curve.values('IS'))
  fd, score = (curve.values(k)[known] + curve.deviations[k][:, known] for k in metrics)
  return list(zip(fd, score))


def _difference(a: Curve, b: Curve, c: Comparison) -> Difference:
  """The mean difference of two frontiers with its error: by seed, or by redrawn samples."""
  value, unknown = c.mean_difference, Difference(c.mean_difference, float('nan'))
  seeds = [{tuple(m.settings[k] for k in SEEDS): m for m in curve.members} for curve in (a, b)]
  if a.members and seeds[0].keys() == seeds[1].keys():
    each = [compare(_points(m), _points(seeds[1][k])).mean_difference for k, m in seeds[0].items()]
    error = float(np.std(each, ddof=1) / len(each) ** 0.5)
    return Difference(value, error, noise.student(len(each)))
  moved = _moved(a), _moved(b)
  if None in moved or len(moved[0]) != len(moved[1]):
    return unknown
  each = [compare(x, y).mean_difference for x, y in zip(*moved)]
  return Difference(value, float(np.std(each))) if np.isfinite(each).all() else unknown


def _frontiers(curves: Sequence[Curve], high: float = 0.5) -> tuple[str, list[str]]:
  def others(curve: Curve) -> dict:
    return {k: v for k, v in curve.settings.items() if k not in ('run', P_UNCOND)}

  verdicts, lines = [], []
  for a in curves:
    for b in curves:
      if a.settings.get(P_UNCOND) != high or b.settings.get(P_UNCOND) in (high, None):
        continue
      if others(a) != others(b) or min(len(_points(a)[0]), len(_points(b)[0])) < 2:
        continue
      c = compare(_points(a), _points(b))
      d = _difference(a, b, c)
      if d.known and not d.clear:
        verdicts.append('noise')
      elif c.worse > 0.5 and c.mean_difference > 0:
        verdicts.append('yes' if c.worse == 1 else 'partly')
      else:
        verdicts.append('no')
      lines.append(f'{a.name} against {b.name}: {_told(c, d, a)}')
  if not lines:
    lines = [f'There is no pair of curves with p_uncond = {high} and another, otherwise equal.']
  return _together(verdicts), lines


def _told(c: Comparison, d: Difference, curve: Curve) -> str:
  throughout = 1 in (c.worse, c.better)
  how = f'{"higher" if d.value > 0 else "lower"} by {_by(d)}'
  if not throughout:
    how += f' (higher on {c.worse:.0%} of the range, lower on {c.better:.0%})'
  line = f'at equal IS, from {c.low:.4g} to {c.high:.4g}, {curve.distance} is on average {how}.'
  if c.high - c.low < np.nanmax(curve.error('IS'), initial=0):
    line += ' That range is narrower than an error of IS.'
  return line


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
