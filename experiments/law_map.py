"""Every rule of guidance × solver × number of steps, on Figure 2's Gaussians: what law it draws.

  python -m experiments.law_map --out DIR [--w 1]

Exact ε, no network. Of each cell the distance of its samples, along the direction of their class,
from the same rule and solver at most steps (its own law), and from the paper's p̃: Wasserstein-1, in
which p̃'s deviation is about 0.85. Two sets of as many samples of one law differ by about 0.02. A
cell is a line of DIR/cells.jsonl, so it goes on where it was stopped; DIR ends with law_map.md and
law_map.png.
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
  'ddpm': ('ddpm', {'v': 0.3}),
  'ddim': ('ddim', {'eta': 0.0}),
  'dpmpp': ('dpmpp', {'order': 2}),
}
STEPS = (8, 32, 128, 512)  # the last one's is the rule's own law
N = 6000  # samples, of three classes
PARTICLES = 4000
CFG_PP_W = 0.5  # its w is of another scale


def cells() -> Iterator[tuple[str, str, int]]:
  """(rule, solver, steps), the most steps first, which the others are compared with."""
  for rule, solver in itertools.product([*rules.RULES, 'smc'], SOLVERS):
    fits = {'mean_shift': (), 'cfg_pp': ('ddim',), 'smc': ('ddpm',)}.get(rule, SOLVERS)
    if solver in fits:
      yield from ((rule, solver, steps) for steps in reversed(STEPS))


def along(x: np.ndarray, c: np.ndarray) -> np.ndarray:
  """Samples (N, 2) along the direction of their class's mean, ascending: (N,)."""
  return np.sort(np.sum(x * figure2.MEANS[c], axis=-1) / figure2.RADIUS)


def draw(rule: str, solver: str, steps: int, w: float) -> np.ndarray:
  """`along` of N samples."""
  keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(N))
  lam = samplers.lambda_grid(steps)
  sampler, own = SOLVERS[solver]
  if rule == 'smc':
    of_class = np.arange(figure2.NUM_CLASSES)
    cond = conditioning.given(jnp.repeat(jnp.asarray(of_class), PARTICLES))
    keys = keys[: figure2.NUM_CLASSES]

    @jax.jit
    def weigh():
      found = smc.draw(
        pairs.null(figure2.exact_eps, cond), keys, (2,), lam, w=w, particles=PARTICLES, **own
      )
      return smc.pick(keys, found, N // figure2.NUM_CLASSES)

    return along(np.asarray(weigh()).reshape(N, 2), np.repeat(of_class, N // figure2.NUM_CLASSES))
  c = np.arange(N) % figure2.NUM_CLASSES

  @jax.jit
  def run():
    pair = pairs.null(figure2.exact_eps, conditioning.given(jnp.asarray(c)))
    model = guidance.guide(pair, rules.RULES[rule], w=CFG_PP_W if rule == 'cfg_pp' else w)
    return samplers.sample_model(model, keys, (2,), lam, sampler=sampler, clip_x=False, **own)

  return along(np.asarray(run()), c)


def tilted(w: float) -> np.ndarray:
  """N even quantiles of p̃ along the direction of the class, ascending."""
  density = figure2.tilted_densities(figure2.GRID, w)[0]  # all classes are alike, but for rotation
  x = figure2.GRID @ figure2.MEANS[0] / figure2.RADIUS
  order = np.argsort(x)
  return np.interp((np.arange(N) + 0.5) / N, np.cumsum(density[order]), x[order])


def measure(out: Path, w: float) -> dict[tuple[str, str, int], dict]:
  """Draws the cells that out/cells.jsonl lacks at w, and returns all, by (rule, solver, steps)."""
  path, found, own = out / 'cells.jsonl', {}, {}
  if path.exists():
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith('\n')]
    path.write_text(''.join(whole))  # without what was being written when it was stopped
    for line in map(json.loads, whole):
      if line['w'] == w:
        found[line['rule'], line['solver'], line['steps']] = line
  wanted, exact = list(cells()), tilted(w)
  progress = Progress(
    'law map', len(wanted), len(wanted) - len(set(wanted) - found.keys()), 'cells'
  )
  for cell in wanted:
    if cell in found:
      continue
    rule, solver, steps = cell
    if (rule, solver) not in own:
      own = {(rule, solver): draw(rule, solver, STEPS[-1], w)}  # one is held at a time
    x = own[rule, solver] if steps == STEPS[-1] else draw(rule, solver, steps, w)
    line = {'w': w, 'rule': rule, 'solver': solver, 'steps': steps}
    line |= {'mean': float(x.mean()), 'std': float(x.std())}
    line['own'] = float(np.abs(x - own[rule, solver]).mean())
    line['tilt'] = float(np.abs(x - exact).mean())
    with path.open('a') as file:
      file.write(json.dumps(line) + '\n')
    found[cell] = line
    progress.update(1, f'{rule}, {solver}')
  progress.done()
  return {cell: found[cell] for cell in wanted}


def table(found: dict[tuple[str, str, int], dict]) -> str:
  """Markdown: a row for each rule and solver, own law and p̃ for each number of steps."""
  lines = [f'| rule | solver | {" | ".join(f"T = {n}: own / p̃" for n in STEPS)} |']
  lines.append('|---' * (2 + len(STEPS)) + '|')
  for rule, solver in dict.fromkeys(cell[:2] for cell in found):
    of_steps = [found[rule, solver, n] for n in STEPS]
    numbers = (f'{c["own"]:.3f} / {c["tilt"]:.3f}' for c in of_steps)
    lines.append(f'| {rule} | {solver} | {" | ".join(numbers)} |')
  return '\n'.join(lines) + '\n'


def write_png(found: dict[tuple[str, str, int], dict], w: float, path: Path) -> None:
  """Distance from p̃ over the steps, a panel for each solver and a line for each rule."""
  import matplotlib

  matplotlib.use('agg')
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(1, len(SOLVERS), figsize=(13, 4.6), sharey=True, layout='tight')
  names = list(dict.fromkeys(rule for rule, *_ in found))
  for panel, solver in zip(axes, SOLVERS):
    for i, rule in enumerate(names):
      y = [found[rule, solver, n]['tilt'] for n in STEPS if (rule, solver, n) in found]
      if y:
        style = '-' if i < 10 else '--'
        panel.plot(STEPS, y, style, marker='o', markersize=3, color=f'C{i % 10}', label=rule)
    panel.set(xscale='log', yscale='log', title=solver, xlabel='steps')
    panel.set_xticks(STEPS, map(str, STEPS))
    panel.minorticks_off()
    panel.grid(alpha=0.3)
  axes[0].set_ylabel(f'Wasserstein-1 from p̃ at w = {w:g}')
  handles = {line.get_label(): line for panel in axes for line in panel.get_lines()}
  figure.legend(handles.values(), handles, loc='outside right upper', fontsize=8)
  figure.savefig(path, format='png', dpi=120, metadata={'Software': None})
  plt.close(figure)


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  out, w = Path(flags.FLAGS.out), flags.FLAGS.w
  if not out.parent.is_dir():
    raise UserError(f'--out={out} must be in a folder that exists.')
  if not 0 <= w <= 10:
    raise UserError(f'--w={w:g} must be 0 to 10: p̃ at more is off the grid.')
  out.mkdir(exist_ok=True)
  found = measure(out, w)
  with files.atomic(out / 'law_map.md') as file:
    file.write(table(found).encode())
  write_png(found, w, out / 'law_map.png')
  print(out / 'law_map.png')


if __name__ == '__main__':
  flags.DEFINE_string('out', None, 'The folder to write.', required=True)
  flags.DEFINE_float('w', 1.0, 'The guidance strength; that of cfg_pp is 0.5 always.')
  cli.run(main)
