"""What a sweep over w saves when one process draws it: 41 values of w. Prints; asserts nothing.

  python -m experiments.benchmark_sweep [--workdir runs/digits/p_uncond=0.1]

One `generate --w 0,0.1,…,4` against 41 processes of `generate` with one w each. All find the
sampler in the persistent cache, since one program serves every w; what each process pays anew is
the start of Python and JAX, the checkpoint, the tracing, and a last batch that it cannot fill. Of
the processes with w > 0, which cost the same, --separate are run, and their mean stands for all 40.
CPU seconds are beside those of the clock: they say the same on a machine that does other work too.
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

from cfg_jax import cli

ROOT = Path(__file__).parents[1]
W = [k / 10 for k in range(41)]  # Section 4


def python_m(*argv: str | Path) -> np.ndarray:
  """Seconds of one command: (on the clock, of CPU). ValueError with its last line if it fails."""
  before, begin = os.times(), time.perf_counter()
  done = subprocess.run([sys.executable, '-m', *argv], cwd=ROOT, capture_output=True, text=True)
  seconds, after = time.perf_counter() - begin, os.times()
  if done.returncode:
    raise ValueError(f'{argv[0]} failed: {done.stderr.strip().splitlines()[-1]}')
  cpu = sum(after[2:4]) - sum(before[2:4])  # of children
  return np.array([seconds, cpu])


def generate(run: Path, ws: list[float], n: int) -> np.ndarray:
  """Seconds to draw n samples of each w into an empty folder beside the run's checkpoints."""
  with tempfile.TemporaryDirectory() as folder:
    shutil.copy(run / 'config.json', folder)
    (Path(folder) / 'checkpoints').symlink_to((run / 'checkpoints').resolve())
    w = ','.join(f'{w:g}' for w in ws)
    return python_m('cfg_jax.generate', '--workdir', folder, '--w', w, '--num_samples', str(n))


def benchmark(run: Path, sizes: list[int], separate: int) -> None:
  """Prints a line for each number of samples a w."""
  warm_up = generate(run, [1.0], 1)  # the sampler is in the cache from here on
  start = generate(run, [1.0], 1)
  print(f'one image {start[0]:.1f} s, of a cold cache at most {warm_up[0]:.1f} s', flush=True)
  print('samples of each w  one process        41 processes      ratio      (clock, CPU)')
  for n in sizes:
    together = generate(run, W, n)
    chosen = [W[k] for k in np.linspace(1, len(W) - 1, separate).round().astype(int)]
    guided = np.mean([generate(run, [w], n) for w in chosen], axis=0)
    apart = generate(run, [0.0], n) + (len(W) - 1) * guided
    ratio = apart / together
    print(
      f'{n:17d}  {together[0]:5.0f} s, {together[1]:5.0f} s  {apart[0]:5.0f} s, {apart[1]:5.0f} s'
      f'  {ratio[0]:.2f}, {ratio[1]:.2f}',
      flush=True,
    )


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS
  with tempfile.TemporaryDirectory() as folder:
    run = Path(given.workdir or folder)
    if not given.workdir:  # what the weights are does not matter here
      steps = '--config.train.num_steps=20'
      python_m('cfg_jax.train', '--config', 'configs/digits.py', '--workdir', folder, steps)
    benchmark(run, [int(n) for n in given.num_samples], given.separate)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A trained run; by default one of 20 steps of the digits.')
  flags.DEFINE_list('num_samples', '100,1000', 'Samples of each w.')
  flags.DEFINE_integer('separate', 4, 'How many of the 40 are run.', lower_bound=1, upper_bound=40)
  cli.run(main)
