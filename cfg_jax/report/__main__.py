"""evals.jsonl → report.html and report.csv.

python -m cfg_jax.report --workdir runs/digits
"""

from pathlib import Path

from absl import flags

from cfg_jax import papers
from cfg_jax.core import command as cli
from cfg_jax.report.page import write_report


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  workdir = Path(flags.FLAGS.workdir)
  write_report(workdir, papers.DEFAULT.study)
  for path in (workdir / 'report.html', workdir / 'report.csv'):
    print(f'{path} ({path.stat().st_size / 1e6:.2f} MB)')


if __name__ == '__main__':  # not above: a sweep that imports this file has its own --workdir
  flags.DEFINE_string('workdir', None, 'The sweep, or the run, to report on.', required=True)
  cli.run(main)
