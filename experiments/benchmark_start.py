"""Seconds from a command to its first training step, and to its first sample. Asserts nothing.

  python -m experiments.benchmark_start [--set model.channels=8]

Cold: with an empty cache of compiled programs; warm: with what the cold ones left there. The step
is done when its loss is in metrics.jsonl, the sample when its file is there; only then does either
command save and end. All of configs/digits.py, each in a process of its own.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from absl import flags

from cfg_jax.core import command as cli
from experiments import ratios
from experiments.ratios import Row

# A command that tells, as it ends, how many of its programs came from the cache.
COUNTED = """
import atexit, runpy, sys
from cfg_jax.core import runtime

tell = lambda: print(f"{runtime.programs['from the cache']} of {runtime.programs['asked for']}")
atexit.register(tell)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name='__main__')
"""


def first(until: Callable[[], bool], cache: Path, *words: str | Path) -> tuple[float, str]:
  """Seconds until what the command is to give is there; and its last line, of its programs."""
  argv = '-c', COUNTED, *words
  (seconds, _), text = ratios.command(*argv, until=until, JAX_COMPILATION_CACHE_DIR=str(cache))
  return seconds, text.splitlines()[-1]


def measure(turns: int, changes: list[str]) -> list[Row]:
  """The four rows; changes: of the config, FIELD=VALUE."""
  found = {}
  sets = [f'--set={change}' for change in ('train.num_steps=1', 'train.log_every=1', *changes)]
  for _ in range(turns):
    with tempfile.TemporaryDirectory() as folder:
      cache = Path(folder) / 'cache'
      for how in ('cold', 'warm'):
        run = Path(folder) / how
        metrics, config = run / 'metrics.jsonl', ('--config', 'configs/digits.py')
        begun = lambda: metrics.exists() and metrics.stat().st_size > 0  # noqa: B023, E731
        drawn = lambda: any(run.glob('samples/**/[0-9]*.npz'))  # noqa: B023, E731
        train = 'cfg_jax.train', *config, '--workdir', run, *sets
        generate = 'cfg_jax.generate', '--workdir', run, '--w=1', '--num_samples=1'
        for what, until, words in (
          ('first step', begun, train),
          ('first sample', drawn, generate),
        ):
          found.setdefault((what, how), []).append(first(until, cache, *words))
  return [
    Row(
      f'digits: {what}, {how} ({told[-1][1]} programs from the cache)',
      [seconds for seconds, _ in told],
      's',
    )
    for (what, how), told in found.items()
  ]


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  ratios.report(measure(flags.FLAGS.turns, flags.FLAGS.set))


if __name__ == '__main__':
  cli.define_set_flag()
  ratios.define_flags(turns=3)
  cli.run(main)
