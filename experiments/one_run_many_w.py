"""One run, many w: the curves of 41 values of w from paths drawn at a few of them.

  python -m experiments.one_run_many_w --workdir runs/many_w

Paths of Algorithm 2 on the digits, from the model in the package, are drawn at as few w₀ as leave
--num_samples effective ones at every w = 0, 0.1, …, 4. Their weights cost no network call, see
`reweight`. FD-digits and IS of the weighted images, with their errors, are compared with those of
direct runs of --num_samples at five w, three seeds each; and network calls and seconds with those
of a direct run at each of the 41, in one process. Stopped, it goes on where it was. Ends with
one_run_many_w.png, and one_run_many_w.txt, what it shows in words.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from cfg_jax.core import command, files
from cfg_jax.evaluate import extractors, make_reference, metrics
from cfg_jax.report import charts
from cfg_jax.report.charts import Frame, Line
from cfg_jax.report.told import told
from experiments import weighted_paths
from experiments.weighted_paths import FD, IS, LAM, Paths, Score, W

COMPARED = (0.0, 0.3, 1.0, 2.0, 4.0)
SEEDS = (0, 1, 2)


class Direct(NamedTuple):
  """Direct runs at one w: their scores by seed, and the median seconds of one."""

  scores: list[Score]
  seconds: float

  def told(self, name: str) -> tuple[float, float]:
    """The mean over seeds and its error."""
    values, spread = zip(*(s.metrics[name] for s in self.scores))
    return float(np.mean(values)), math.sqrt(np.mean(np.square(spread)) / len(spread))


class Found(NamedTuple):
  """All that is told."""

  n: int  # samples of a direct run
  paths: Paths
  curve: list[Score]  # at each of W
  direct: Mapping[float, Direct]


def apart(found: Found, w: float, name: str) -> float:
  """The weighted value less the direct one, in errors of that difference."""
  (a, b), (c, d) = found.curve[W.index(w)].metrics[name], found.direct[w].told(name)
  return (a - c) / math.hypot(b, d)


def cost(found: Found) -> tuple[float, float]:
  """Network calls and seconds of a direct run at each of W: w = 0 takes one call a step."""
  unguided, guided = (
    np.median([d.seconds for w, d in found.direct.items() if (w == 0) == none])
    for none in (True, False)
  )
  others = len(W) - 1
  return len(LAM) * found.n * (1 + 2 * others), float(unguided + others * guided)


def alone(paths: Paths, k: int, by: int) -> float:
  """The effective share, at W[k] ± by tenths, of the paths of w₀ = W[k] by themselves."""
  own = paths.source == k
  ends = [j for j in (k - by, k + by) if 0 <= j < len(W)]
  weights = np.exp(paths.log_weights[own][:, ends]).T
  return float(np.mean([metrics.effective(x) for x in weights]) / np.sum(own))


def findings(found: Found) -> list[str]:
  """The page in words."""
  paths, effective = found.paths, np.array([s.effective for s in found.curve])
  (calls, seconds), least = cost(found), int(np.argmin(effective))
  counts = sorted(collections.Counter(paths.source.tolist()).items())
  where = ', '.join(f'{n} at {W[k]:g}' for k, n in counts)
  best = int(np.argmin([s.metrics[FD][0] for s in found.curve]))
  lines = [
    f'{len(paths.labels)} paths of {len(counts)} w₀ ({where}) give each of the {len(W)} w at least '
    f'{effective[least]:.0f} effective ones (at w = {W[least]:g}).',
    f'Network calls: {paths.calls} for {calls} of a direct run of {found.n} at each w, '
    f'{calls / paths.calls:.1f} times fewer; drawing took {paths.seconds:.1f} s for '
    f'{seconds:.1f}, {seconds / paths.seconds:.1f} times less.',
    f'Least {FD}: {told(*found.curve[best].metrics[FD])} at w = {W[best]:g}.',
  ]
  for name in (FD, IS):
    z = {w: apart(found, w, name) for w in found.direct}
    w = max(z, key=lambda w: abs(z[w]))
    mean = np.mean([z[w] for w in z])
    ratio = np.mean(
      [
        found.curve[W.index(w)].metrics[name][1] / np.mean([s.metrics[name][1] for s in d.scores])
        for w, d in found.direct.items()
      ]
    )
    lines.append(
      f'{name} is {abs(z[w]):.1f} errors of the difference or less from direct runs at {len(z)} w '
      f'(the most at w = {w:g}; {mean:+.1f} on average), and its error is {ratio:.2f} times '
      'that of one direct run.'
    )
  for k, n in counts:
    shares = ', '.join(f'{alone(paths, k, by):.2f} at ±{by / 10:g}' for by in (1, 2, 5))
    lines.append(f'Of {n} paths at w₀ = {W[k]:g} alone, the effective share is {shares}.')
  return lines


def table(found: Found) -> str:
  """Markdown: what paths and direct runs say where there are both."""
  lines = [
    f'| w | effective | {FD}, weighted | direct, of {len(SEEDS)} | {IS}, weighted | direct |',
    '|---' * 6 + '|',
  ]
  for w, direct in found.direct.items():
    s = found.curve[W.index(w)]
    pairs = [told(*x) for f in (FD, IS) for x in (s.metrics[f], direct.told(f))]
    lines.append(f'| {w:g} | {s.effective:.0f} | {" | ".join(pairs)} |')
  return '\n'.join(lines) + '\n'


def draw(found: Found, path: Path) -> None:
  """Three charts over w: FD, IS, and how many effective paths there are."""
  w = np.array(W)
  curve = {k: np.array([s.metrics[k] for s in found.curve]).T for k in (FD, IS)}
  at = np.array(list(found.direct))
  direct = {k: np.array([d.told(k) for d in found.direct.values()]).T for k in (FD, IS)}
  effective = np.array([s.effective for s in found.curve])
  bands = {k: (value - error, value + error) for k, (value, error) in curve.items()}
  values = {'w': w, 'effective paths': effective} | {k: x[0] for k, x in curve.items()}
  lines = [
    Line(
      'direct runs',
      {'w': at} | {k: x[0] for k, x in direct.items()},
      None,
      errors={k: x[1] for k, x in direct.items()},
    ),
    Line(f'{len(found.paths.labels)} weighted paths', values, 0, bands=bands),
  ]
  with charts.style(**{'font.size': 10}):
    figure = Figure(figsize=(13, 4.2), layout='constrained')
    axes = figure.subplots(1, 3)
    for ax, name in zip(axes, (FD, IS, 'effective paths')):
      charts.draw(ax, lines, Frame('w', name, 'w', logs=(FD,)))
    axes[2].axhline(found.n, color=charts.LIGHT['soft'], linestyle=(0, (3, 2)), linewidth=1)
    sources = w[np.unique(found.paths.source)]
    axes[2].plot(sources, np.zeros(len(sources)), '|', color=charts.LIGHT['ink'], markersize=14)
    axes[2].set_ylim(0)
    axes[2].set_title('marks: the w₀; dashed: of a direct run', fontsize=9)
    named = axes[0].get_legend_handles_labels()
    figure.legend(*named, frameon=False, ncols=2, loc='outside lower left')
    figure.savefig(path, dpi=90, metadata={'Software': None})


def measure(workdir: Path, n: int, compared: Sequence[float] = COMPARED) -> Found:
  """Draws what workdir lacks, and scores it."""
  drawn, extractor = weighted_paths.Drawn(workdir), extractors.make('digits')
  reference = make_reference.of_dataset('digits', workdir / 'data', 'train', extractor)
  _, paths = weighted_paths.choose(drawn, n)
  direct = {}
  for w in compared:
    sets = [drawn.direct(w, seed, n) for seed in SEEDS]
    scores = [
      weighted_paths.score(x['images'], x['c'], np.ones(n), extractor, reference, n) for x in sets
    ]
    direct[w] = Direct(scores, float(np.median([x['seconds'] for x in sets])))
    print(f'direct runs at w = {w:g}: {FD} {told(*direct[w].told(FD))}', flush=True)
  return Found(n, paths, weighted_paths.curve(paths, extractor, reference, n), direct)


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  workdir = Path(flags.FLAGS.workdir)
  files.check_folder(workdir)
  found = measure(workdir, flags.FLAGS.num_samples)
  path = workdir / 'one_run_many_w.png'
  draw(found, path)
  text = '\n'.join(findings(found))
  files.write_text(path.with_suffix('.txt'), f'{text}\n\n{table(found)}')
  print(f'{text}\n\n{table(found)}{path}')


def define_flags() -> None:
  """Where, and how many."""
  flags.DEFINE_string('workdir', None, 'The folder to write.', required=True)
  flags.DEFINE_integer(
    'num_samples', 1000, 'Of a direct run, and effective ones at every w.', lower_bound=100
  )


if __name__ == '__main__':
  define_flags()
  command.run(main)
