"""What the benchmarks share: calls that are timed in turns, and the one table of their ratios.

A part prints its own table; with --rows FILE it leaves the rows there too, for
`experiments.benchmark`.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from cfg_jax.core import files
from cfg_jax.core.errors import UserError

ROOT = Path(__file__).parents[1]
SHOWN = {'×': '{:.2f} ×', '%': '{:.1%}', 's': '{:.1f} s'}  # a number, by its unit


class Row(NamedTuple):
  """One number of the table, as it was in each turn."""

  what: str
  turns: list[float]
  unit: str = '×'  # times as fast as ours; or '%', a share of 1; or 's', seconds


def in_turns(turns: int, *calls: Callable[[], object]) -> np.ndarray:
  """Seconds of each call in each turn, (calls, turns); before the first turn each runs once."""
  for call in calls:
    jax.block_until_ready(call())  # compiles
  seconds = np.empty((len(calls), turns))
  for turn in range(turns):
    for k, call in enumerate(calls):
      begin = time.perf_counter()
      jax.block_until_ready(call())
      seconds[k, turn] = time.perf_counter() - begin
  return seconds


def command(
  *words: str | Path, until: Callable[[], bool] | None = None, **env: str
) -> tuple[np.ndarray, str]:
  """Runs `python words…` to its end: ((seconds on the clock, of CPU), what it printed).

  until: what ends the time on the clock, by default the command's end. Raises UserError with the
  end of what it printed if it fails.
  """
  before, begin, seconds = os.times(), time.perf_counter(), None
  with tempfile.TemporaryFile('w+') as out:
    process = subprocess.Popen(
      [sys.executable, *words], cwd=ROOT, env=os.environ | env, stdout=out, stderr=out
    )
    while until and process.poll() is None and seconds is None:
      if until():
        seconds = time.perf_counter() - begin
      time.sleep(0.01)
    failed = process.wait()
    seconds = seconds or time.perf_counter() - begin
    out.seek(0)
    text = out.read().strip()
  if failed:
    raise UserError(f'python {" ".join(map(str, words[-3:]))} failed: {text[-300:]}')
  after = os.times()
  return np.array([seconds, sum(after[2:4]) - sum(before[2:4])]), text


def cores() -> int:
  """How many cores this process may use."""
  affinity = getattr(os, 'sched_getaffinity', None)  # Linux only
  return len(affinity(0)) if affinity else os.cpu_count()


def on_cores() -> str:
  """That number in words."""
  return 'one core' if cores() == 1 else f'{cores()} cores'


def machine() -> str:
  """The machine's name, in words."""
  name, cpuinfo = platform.processor() or platform.machine(), Path('/proc/cpuinfo')
  if cpuinfo.exists():
    lines = [line.partition(':') for line in cpuinfo.read_text().splitlines()]
    name = next((value.strip() for key, _, value in lines if key.startswith('model name')), name)
  return f'{name}, {on_cores()}, JAX {jax.__version__}'


def show(rows: Sequence[Row]) -> str:
  """The table: median, least and greatest of the turns, and their number."""
  lines = [('', 'median', 'least', 'greatest', 'turns')]
  for row in rows:
    numbers = np.median(row.turns), min(row.turns), max(row.turns)
    lines.append((row.what, *map(SHOWN[row.unit].format, numbers), str(len(row.turns))))
  return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
  """Columns of text, the first to the left and the others to the right."""
  widths = [max(map(len, column)) for column in zip(*lines)]
  return '\n'.join(
    '  '.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
  )


def define_flags(turns: int) -> None:
  """The flags of every part."""
  flags.DEFINE_integer('turns', turns, 'How often each is measured.', lower_bound=1)
  flags.DEFINE_string('rows', None, 'A file for the rows, as JSON lines.')


def report(rows: Sequence[Row]) -> None:
  """Prints the table, under the machine's name, and leaves the rows where --rows says."""
  print(f'{machine()}\n{show(rows)}', flush=True)
  if flags.FLAGS.rows:
    files.write_text(Path(flags.FLAGS.rows), files.json_lines([row._asdict() for row in rows]))
