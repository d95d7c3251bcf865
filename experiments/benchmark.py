"""How fast this is on this machine: every ratio, in one table. Prints; asserts nothing.

  pip install -e '.[parity]' && python -m experiments.benchmark [--long] [--parts shares,unet]

On a CPU each part is commands of their own, shown as they start: shares of the machine's float32
product; the U-Net beside PyTorch's, and where a step's time goes; all of these on all cores and on
one; the start of a command; a sweep of 41 w; evaluation. What fails is told of, and the rest goes
on. --long has 1 000 samples of each w for 100, and adds ADM-64 and Inception.

On a GPU or TPU it is first the table of `device_table`, of three networks in bfloat16, or of the
config that is given; then, on a GPU, the networks beside PyTorch's in bfloat16.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from cfg_jax.core import command, files, runtime
from cfg_jax.core.errors import UserError
from experiments import device_table, ratios
from experiments.ratios import Row

PARTS = {  # modules of this folder, with flags
  'shares': ['benchmark_shares'],
  'unet': ['benchmark_unet', 'benchmark_profile'],
  'start': ['benchmark_start'],
  'sweep': ['benchmark_sweep --num_samples=100'],
  'evaluation': ['benchmark_evaluation --noinception'],
}
LONG = PARTS | {
  'unet': [*PARTS['unet'], 'benchmark_unet --size=adm64 --batch_size=2 --turns=5'],
  'sweep': ['benchmark_sweep --num_samples=1000 --turns=2 --weighted'],
  'evaluation': ['benchmark_evaluation'],
}
ALSO_ON_ONE_CORE = ('shares', 'unet')
ON_A_GPU = [
  'benchmark_unet --dtype=bfloat16 --batch_size=1024',
  'benchmark_unet --dtype=bfloat16 --size=cifar10 --batch_size=256',
  'benchmark_unet --dtype=bfloat16 --size=adm64 --batch_size=16',
]


def commands(parts: Sequence[str], long: bool) -> list[str]:
  """The commands of parts on a CPU, as they are typed. UserError where there is no such part."""
  if unknown := [part for part in parts if part not in PARTS]:
    raise UserError(f'--parts={",".join(unknown)}: there are {", ".join(PARTS)}.')
  found = []
  for part in parts:
    found += [f'python -m experiments.{line}' for line in (LONG if long else PARTS)[part]]
    if part in ALSO_ON_ONE_CORE and ratios.cores() > 1:
      core = f'taskset -c {min(os.sched_getaffinity(0))}'
      found += [f'{core} python -m experiments.{line}' for line in PARTS[part]]
  return found


def measure(lines: Sequence[str]) -> list[Row]:
  """The rows that commands leave by --rows, one after the other; tells which of them failed."""
  rows = []
  for line in lines:
    print(f'\n{line}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
      path = Path(folder) / 'rows.jsonl'
      argv = [sys.executable if word == 'python' else word for word in line.split()]
      if subprocess.run([*argv, f'--rows={path}'], cwd=ratios.ROOT).returncode:
        print(f'{line} failed: its rows are missing.', flush=True)
      rows += [Row(**row) for row in files.read_jsonl(path)]
  return rows


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS['config'].present
  config = command.config_of_file()
  batch_sizes = config.train.batch_size, config.sample.batch_size
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs memory too
  runtime.setup_jax(*batch_sizes, channels=config.model.channels)
  if jax.default_backend() == 'cpu':
    lines = commands(flags.FLAGS.parts, flags.FLAGS.long)
  else:
    kind = jax.devices()[0].device_kind
    print(f'{jax.device_count()} × {kind}, JAX {jax.__version__}', flush=True)
    rows = device_table.measure(config) if given else device_table.measure_all()
    print(device_table.show(rows, device_table.peak_flops()), flush=True)
    lines = ON_A_GPU if jax.default_backend() == 'gpu' and not given else []
  if rows := measure(lines):
    print(f'\n{ratios.machine()}\n{ratios.show(rows)}')


if __name__ == '__main__':
  command.define_config_flags('configs/digits.py', required=False)
  flags.DEFINE_list('parts', list(PARTS), 'Which, on a CPU.')
  flags.DEFINE_boolean('long', False, 'Also what takes longest, on a CPU.')
  command.run(main)
