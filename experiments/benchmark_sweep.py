"""What a sweep over w saves when one process draws it: 41 values of w. Asserts nothing.

  python -m experiments.benchmark_sweep [--workdir runs/digits/p_uncond=0.1]

One `generate --w 0,0.1,…,4` against 41 processes of `generate` with one w each, which find the
sampler in the persistent cache, since one program serves every w; and against 41 that each compile
it. What a process pays anew is the start of Python and JAX, the checkpoint, the tracing, and a last
batch that it cannot fill: the more samples a w has, the less that weighs. Of the processes with
w > 0, which cost the same, --separate are run, and their mean stands for all 40; what compiling
costs is measured on one. CPU seconds are beside those of the clock: they say something on a machine
that does other work too, but drawing takes all of its cores, and starting one. Network calls are
for single images, with those that fill up a last batch. --weighted adds what `one_run_many_w` does
instead of drawing each w.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np
from absl import flags

from cfg_jax.core import command as cli
from cfg_jax.core import config as config_lib
from cfg_jax.equations.guidance import rules
from cfg_jax.generate.draw import images_at_once
from cfg_jax.plan import cost
from experiments import one_run_many_w, ratios, weighted_paths
from experiments.ratios import Row
from experiments.weighted_paths import W


def generate(run: Path, ws: Sequence[float], n: int, **env: str) -> np.ndarray:
  """Seconds to draw n samples of each w into an empty folder beside the run's checkpoints."""
  with tempfile.TemporaryDirectory() as folder:
    shutil.copy(run / 'config.json', folder)
    (Path(folder) / 'checkpoints').symlink_to((run / 'checkpoints').resolve())
    w = ','.join(f'{w:g}' for w in ws)
    argv = ('--workdir', folder, '--w', w, '--num_samples', str(n))
    return ratios.command('-m', 'cfg_jax.generate', *argv, **env)[0]


def calls(config: ml_collections.ConfigDict, ws: Sequence[float], n: int) -> float:
  """Network calls of single images of one process that draws n samples of each w."""
  config = config_lib.change(config, [f'sample.num_samples={n}'])
  size, total = images_at_once(config.sample, ratios.cores()), 0.0
  for some in ([w for w in ws if rules.unguided({'w': w})], [w for w in ws if w]):
    if some:
      total += -(-n * len(some) // size) * size * cost.image_calls(config, some[0])
  return total


def measure(run: Path, sizes: list[int], separate: int, turns: int) -> list[Row]:
  """For each number of samples a w: one process's calls, clock and CPU beside 41 processes'."""
  generate(run, [1.0], 1)  # the sampler is in the cache from here on
  warm = generate(run, [1.0], 1)
  compiling = generate(run, [1.0], 1, JAX_ENABLE_COMPILATION_CACHE='false') - warm
  config, rows = config_lib.of_run(run), []

  def show(name, seconds):
    print(f'{name:44s}{seconds[0]:7.1f} s{seconds[1]:7.1f} s of CPU', flush=True)

  show('a process that draws one image', warm)
  show('compiling, if it must', compiling)
  chosen = [W[k] for k in np.linspace(1, len(W) - 1, separate).round().astype(int)]
  for n in sizes:
    found = []
    for _ in range(turns):
      together = generate(run, W, n)
      guided = np.mean([generate(run, [w], n) for w in chosen], axis=0)
      apart = generate(run, [0.0], n) + (len(W) - 1) * guided
      show(f'n = {n}: one process for {len(W)} w', together)
      show(f'  {len(W)} processes', apart)
      found.append((*apart / together, *(apart + len(W) * compiling) / together))
    columns = np.transpose(found).tolist()
    what = f'{len(W)} w, {n} samples of each, one process beside {len(W)}'
    few = sum(calls(config, [w], n) for w in W) / calls(config, W, n)
    rows += [
      Row(f'{what}: network calls', [few]),
      Row(f'{what}: seconds', columns[0]),
      Row(f'{what}: CPU seconds', columns[1]),
      Row(f'{what}, that all compile: seconds', columns[2]),
    ]
  return rows


def weighted(n: int) -> list[Row]:
  """The same w with n effective samples of each from paths of a few w₀, beside drawing each."""
  with tempfile.TemporaryDirectory() as folder:
    drawn = weighted_paths.Drawn(Path(folder))
    _, paths = weighted_paths.choose(drawn, n)
    seconds = {w: float(drawn.direct(w, 0, n)['seconds']) for w in (0.0, 1.0)}
  direct = {w: one_run_many_w.Direct([], taken) for w, taken in seconds.items()}
  calls, taken = one_run_many_w.cost(one_run_many_w.Found(n, paths, [], direct))
  what = f'{len(W)} w, {n} effective samples of each, weighted paths beside drawing each'
  return [
    Row(f'{what}: network calls', [calls / paths.calls]),
    Row(f'{what}: seconds', [taken / paths.seconds]),
  ]


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS
  with tempfile.TemporaryDirectory() as folder:
    run = Path(given.workdir or folder)
    if not given.workdir:  # what the weights are does not matter here
      train = '-m', 'cfg_jax.train', '--config', 'configs/digits.py', '--workdir', folder
      ratios.command(*train, '--set=train.num_steps=20')
    sizes = [int(n) for n in given.num_samples]
    rows = measure(run, sizes, given.separate, given.turns)
    if given.weighted:
      rows += weighted(max(sizes))
    ratios.report(rows)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A trained run; by default one of 20 steps of the digits.')
  flags.DEFINE_list('num_samples', '100,1000', 'Samples of each w.')
  flags.DEFINE_integer('separate', 4, 'How many of the 40 are run.', lower_bound=1, upper_bound=40)
  flags.DEFINE_boolean('weighted', False, 'Also the weighted paths of `one_run_many_w`.')
  ratios.define_flags(turns=3)
  cli.run(main)
