"""What a sweep over w saves when one process draws it: 41 values of w. Prints; asserts nothing.

  python -m experiments.benchmark_sweep [--workdir runs/digits/p_uncond=0.1]

One `generate --w 0,0.1,…,4` against 41 processes of `generate` with one w each, which find the
sampler in the persistent cache, since one program serves every w; and against 41 that each compile
it. What a process pays anew is the start of Python and JAX, the checkpoint, the tracing, and a last
batch that it cannot fill: the more samples a w has, the less that weighs. Of the processes with
w > 0, which cost the same, --separate are run, and their mean stands for all 40; what compiling
costs is measured on one. CPU seconds are beside those of the clock: they say something on a machine
that does other work too, but drawing takes all of its cores, and starting one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags

from cfg_jax.core import command as cli
from cfg_jax.core.errors import UserError

ROOT = Path(__file__).parents[1]
W = [k / 10 for k in range(41)]  # Section 4


def python_m(*argv: str | Path, **env: str) -> np.ndarray:
  """Seconds of one command: (on the clock, of CPU). ValueError with its last line if it fails."""
  before, begin = os.times(), time.perf_counter()
  done = subprocess.run(
    [sys.executable, '-m', *argv], cwd=ROOT, env=os.environ | env, capture_output=True, text=True
  )
  seconds, after = time.perf_counter() - begin, os.times()
  if done.returncode:
    raise UserError(f'{argv[0]} failed: {done.stderr.strip().splitlines()[-1]}')
  cpu = sum(after[2:4]) - sum(before[2:4])  # of children
  return np.array([seconds, cpu])


def generate(run: Path, ws: list[float], n: int, **env: str) -> np.ndarray:
  """Seconds to draw n samples of each w into an empty folder beside the run's checkpoints."""
  with tempfile.TemporaryDirectory() as folder:
    shutil.copy(run / 'config.json', folder)
    (Path(folder) / 'checkpoints').symlink_to((run / 'checkpoints').resolve())
    w = ','.join(f'{w:g}' for w in ws)
    argv = ('--workdir', folder, '--w', w, '--num_samples', str(n))
    return python_m('cfg_jax.generate', *argv, **env)


def benchmark(run: Path, sizes: list[int], separate: int) -> None:
  """Prints a row for each number of samples a w."""
  generate(run, [1.0], 1)  # the sampler is in the cache from here on
  warm = generate(run, [1.0], 1)
  compiling = generate(run, [1.0], 1, JAX_ENABLE_COMPILATION_CACHE='false') - warm

  def show(name, seconds, ratio=''):
    print(f'{name:44s}{seconds[0]:7.1f} s{seconds[1]:7.1f} s of CPU  {ratio}', flush=True)

  show('a process that draws one image', warm)
  show('compiling, if it must', compiling)
  for n in sizes:
    together = generate(run, W, n)
    show(f'n = {n}: one process for {len(W)} w', together)
    chosen = [W[k] for k in np.linspace(1, len(W) - 1, separate).round().astype(int)]
    guided = np.mean([generate(run, [w], n) for w in chosen], axis=0)
    cached = generate(run, [0.0], n) + (len(W) - 1) * guided
    for name, apart in (('', cached), (', all compiling', cached + len(W) * compiling)):
      ratio = apart / together
      show(f'  {len(W)} processes{name}', apart, f'ratio {ratio[0]:.2f}, of CPU {ratio[1]:.2f}')


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS
  with tempfile.TemporaryDirectory() as folder:
    run = Path(given.workdir or folder)
    if not given.workdir:  # what the weights are does not matter here
      steps = '--set=train.num_steps=20'
      python_m('cfg_jax.train', '--config', 'configs/digits.py', '--workdir', folder, steps)
    benchmark(run, [int(n) for n in given.num_samples], given.separate)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A trained run; by default one of 20 steps of the digits.')
  flags.DEFINE_list('num_samples', '100,1000', 'Samples of each w.')
  flags.DEFINE_integer('separate', 4, 'How many of the 40 are run.', lower_bound=1, upper_bound=40)
  cli.run(main)
