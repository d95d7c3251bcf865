"""Every rule of guidance × solver × number of steps, on Figure 2's Gaussians: what law it draws.

  python -m experiments.law_map --out DIR [--w 1]

Exact ε, no network. Two distances of each cell's samples: from the rule's own law, which is the
same rule and solver at most steps (CFG++ has none: it guides the more, the more steps there are;
the law of weighted particles, `smc`, is p̃), and from the paper's p̃(x|c) ∝ p(x|c) p(c|x)^w. They
are sliced: the mean of Wasserstein-1 along eight directions, in each of which p̃'s deviation is
about 0.85; two sets of as many samples of one law differ by about 0.02. `rescale` divides by the
deviation over a sample's numbers, of which there are two here: it has no law to speak of. A cell is
a line of DIR/cells.jsonl, so it goes on where it was stopped; DIR ends with law_map.md and
law_map.png.

Particles need v = 1 where steps are long: its transitions are the true reverse ones of a Gaussian
class of deviation 1, as these are. With v < 1 they are narrower, p(x|c) and p(x) come out narrower
with them, and after a long step few particles have all the weight. More particles do not help.
"""

import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from cfg_jax.core import command as cli
from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.core.progress import Progress
from cfg_jax.equations import conditioning, guidance, samplers
from cfg_jax.equations.guidance import pairs, rules, smc
from experiments import figure2_gaussians as figure2

SOLVERS = {
  'ddpm, v = 0.3': ('ddpm', {'v': 0.3}),
  'ddpm, v = 1': ('ddpm', {'v': 1.0}),
  'ddim': ('ddim', {'eta': 0.0}),
  'dpmpp': ('dpmpp', {'order': 2}),
}
STEPS = (8, 32, 128, 512)  # the last one's is the rule's own law
N = 6000  # samples, of three classes
PARTICLES = 4000  # a class
CFG_PP_W = 0.5  # its w is of another scale
ANGLES = np.linspace(0, np.pi, 8, endpoint=False)
DIRECTIONS = np.stack([np.cos(ANGLES), np.sin(ANGLES)])  # (2, 8); the first one is the class's own
Cells = dict[tuple[str, str, int], dict]  # by rule, solver and steps


def cells() -> Iterator[tuple[str, str, int]]:
  """(rule, solver, steps), the most steps first, which the others are compared with."""
  for rule, solver in itertools.product([*rules.RULES, 'smc'], SOLVERS):
    fits = {'mean_shift': (), 'cfg_pp': ('ddim',), 'smc': ('ddpm',)}
    if rules.RULES.get(rule) in rules.LOOKS_BACK:
      fits[rule] = samplers.TELLING
    if SOLVERS[solver][0] in fits.get(rule, (SOLVERS[solver][0],)):
      yield from ((rule, solver, steps) for steps in reversed(STEPS))


def projected(x: np.ndarray, c: np.ndarray) -> np.ndarray:
  """Samples (N, 2) along DIRECTIONS, from that of their class's mean, each ascending: (N, 8)."""
  own = figure2.MEANS[c] / figure2.RADIUS
  across = np.stack([-own[:, 1], own[:, 0]], axis=1)
  frame = np.stack([np.sum(x * own, axis=1), np.sum(x * across, axis=1)], axis=1)
  return np.sort(frame @ DIRECTIONS, axis=0)


def draw(rule: str, solver: str, steps: int, w: float) -> tuple[np.ndarray, float]:
  """`projected` of N samples, and of particles the least effective share that they ever had."""
  keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(N))
  lam = samplers.lambda_grid(steps)
  sampler, own = SOLVERS[solver]
  if rule == 'smc':
    keys, each = keys[: figure2.NUM_CLASSES], N // figure2.NUM_CLASSES
    of_class = np.arange(figure2.NUM_CLASSES)
    cond = conditioning.given(jnp.repeat(jnp.asarray(of_class), PARTICLES))

    @jax.jit
    def weigh():
      pair = pairs.null(figure2.exact_eps, cond)
      found = smc.draw(pair, keys, (2,), lam, w=w, particles=PARTICLES, **own)
      return smc.pick(keys, found, each), found.effective.min()

    x, effective = weigh()
    x = np.asarray(x).reshape(-1, 2)
    return projected(x, np.repeat(of_class, each)), float(effective) / PARTICLES
  c = np.arange(N) % figure2.NUM_CLASSES

  @jax.jit
  def run():
    pair = pairs.null(figure2.exact_eps, conditioning.given(jnp.asarray(c)))
    model = guidance.guide(pair, rules.RULES[rule], w=CFG_PP_W if rule == 'cfg_pp' else w)
    return samplers.sample_model(model, keys, (2,), lam, sampler=sampler, clip_x=False, **own)

  return projected(np.asarray(run()), c), 1.0


def tilted(w: float) -> np.ndarray:
  """N even quantiles of p̃ along each of DIRECTIONS, ascending: (N, 8)."""
  density = figure2.tilted_densities(figure2.GRID, w)[0]  # all classes are alike, but for rotation
  own = figure2.MEANS[0] / figure2.RADIUS
  frame = np.stack([figure2.GRID @ own, figure2.GRID @ [-own[1], own[0]]], axis=1)
  columns = []
  for x in (frame @ DIRECTIONS).T:
    order = np.argsort(x)
    columns.append(np.interp((np.arange(N) + 0.5) / N, np.cumsum(density[order]), x[order]))
  return np.stack(columns, axis=1)


def distance(a: np.ndarray, b: np.ndarray) -> float:
  """The sliced Wasserstein-1 distance of two sets that are sorted along each direction, (N, 8)."""
  return float(np.abs(a - b).mean())


def measure(out: Path, w: float) -> Cells:
  """Draws the cells that out/cells.jsonl lacks at w, and returns all."""
  path, found, own = out / 'cells.jsonl', {}, {}
  if path.exists():
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith('\n')]
    files.write_text(path, ''.join(whole))  # without what was being written when it was stopped
    for line in map(json.loads, whole):
      if line['w'] == w:
        found[line['rule'], line['solver'], line['steps']] = line
  wanted, exact = list(cells()), tilted(w)
  done = sum(cell in found for cell in wanted)
  progress = Progress('law map', len(wanted), done, 'cells')
  for cell in wanted:
    if cell in found:
      continue
    rule, solver, steps = cell
    if (rule, solver) not in own:
      own = {(rule, solver): draw(rule, solver, STEPS[-1], w)}  # one is held at a time
    x, share = own[rule, solver] if steps == STEPS[-1] else draw(rule, solver, steps, w)
    line = {'w': w, 'rule': rule, 'solver': solver, 'steps': steps}
    line |= {'mean': float(x[:, 0].mean()), 'std': float(x[:, 0].std()), 'effective': share}
    line['tilt'] = distance(x, exact)
    line['own'] = distance(x, own[rule, solver][0])
    line |= {k: None for k in ('own', 'tilt') if not np.isfinite(line[k])}  # `rescale` can end so
    if rule in ('cfg_pp', 'smc'):
      line['own'] = None if rule == 'cfg_pp' else line['tilt']
    with path.open('a') as file:
      file.write(json.dumps(line) + '\n')
    found[cell] = line
    progress.update(1, f'{rule}, {solver}')
  progress.done()
  return {cell: found[cell] for cell in wanted}


def table(found: Cells) -> str:
  """Markdown: a row for each rule and solver, own law and p̃ for each number of steps."""
  lines = [f'| rule | solver | {" | ".join(f"T = {n}: own / p̃" for n in STEPS)} |']
  lines.append('|---' * (2 + len(STEPS)) + '|')
  for rule, solver in dict.fromkeys(cell[:2] for cell in found):
    numbers = []
    for steps in STEPS:
      cell = found[rule, solver, steps]
      own, tilt = (f'{cell[k]:.3f}' if cell[k] else '–' for k in ('own', 'tilt'))
      numbers.append(f'{own} / {tilt}')
    lines.append(f'| {rule} | {solver} | {" | ".join(numbers)} |')
  return '\n'.join(lines) + '\n'


def write_png(found: Cells, w: float, path: Path) -> None:
  """Distances from p̃, and below from the own law, over the steps: a panel for each solver."""
  import matplotlib

  matplotlib.use('agg')
  import matplotlib.pyplot as plt

  figure, rows = plt.subplots(
    2, len(SOLVERS), figsize=(13, 7), sharex=True, sharey='row', squeeze=False, layout='constrained'
  )
  names = list(dict.fromkeys(rule for rule, *_ in found))
  told = {'tilt': f'distance from p̃ at w = {w:g}', 'own': 'distance from its own law'}
  for panels, (which, label) in zip(rows, told.items()):
    for panel, solver in zip(panels, SOLVERS):
      for i, rule in enumerate(names):
        of_steps = [found[rule, solver, n] for n in STEPS if (rule, solver, n) in found]
        shown = [c for c in of_steps if c[which]]
        look = {'linestyle': '-' if i < 10 else '--', 'marker': 'o' if i < 10 else 's'}
        if rule == 'smc':
          look |= {'color': 'black', 'linestyle': '-', 'linewidth': 2.4}
        look = {'color': f'C{i % 10}', 'markersize': 3, 'label': rule} | look
        if shown:
          panel.plot([c['steps'] for c in shown], [c[which] for c in shown], **look)
      panel.set(xscale='log', yscale='log')
      panel.set_xticks(STEPS, map(str, STEPS))
      panel.minorticks_off()
      panel.grid(alpha=0.3)
    panels[0].set_ylabel(label)
  for panel, above, solver in zip(rows[1], rows[0], SOLVERS):
    panel.set_xlabel('steps')
    above.set_title(solver, fontsize=11)
  handles = {line.get_label(): line for panel in rows[0] for line in panel.get_lines()}
  figure.legend(handles.values(), handles, loc='outside right upper', fontsize=8, frameon=False)
  figure.savefig(path, format='png', dpi=90, metadata={'Software': None})
  plt.close(figure)


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  out, w = Path(flags.FLAGS.out), flags.FLAGS.w
  if not 0 <= w <= 10:
    raise UserError(f'--w={w:g} must be 0 to 10: p̃ at more is off the grid.')
  out.mkdir(parents=True, exist_ok=True)
  found = measure(out, w)
  files.write_text(out / 'law_map.md', table(found))
  write_png(found, w, out / 'law_map.png')
  print(out / 'law_map.png')


if __name__ == '__main__':
  flags.DEFINE_string('out', None, 'The folder to write.', required=True)
  flags.DEFINE_float('w', 1.0, 'The guidance strength; that of cfg_pp is 0.5 always.')
  cli.run(main)
