"""The paper's sweep: one model for each p_uncond, samples for each w, evaluated and drawn.

  python -m experiments.sweep --config configs/digits.py --workdir runs/digits

Each model's run is a folder of the work directory. What is on disk is not done again, so a sweep
that was stopped goes on where it was. At the end: report.html and report.csv.
"""

import copy
from pathlib import Path

import ml_collections
from absl import flags

from cfg_jax import cli, report, sharding
from cfg_jax import config as config_lib
from cfg_jax.evaluate import evaluate
from cfg_jax.generate import generate
from cfg_jax.train import train


def sweep(config: ml_collections.ConfigDict, p_unconds: list[float], workdir: Path) -> None:
  """Trains, samples, evaluates and reports, for each p_uncond in turn; the report grows with them.

  Raises ValueError, before any work, where one of the configs is wrong.
  """
  runs = []
  for p_uncond in p_unconds:
    run = copy.deepcopy(config)
    run.train.p_uncond = p_uncond
    config_lib.validate(run, 1)
    runs.append((run, workdir / f'p_uncond={p_uncond:g}'))
  for run, folder in runs:
    train(run, folder)
    step = generate(run, folder)
    evaluate(run, folder, step)
    report.write_report(workdir)
  print(f'{workdir / "report.html"}\n{workdir / "report.csv"}')


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  config = config_lib.of_flags()
  sharding.setup_jax(config.train.batch_size, config.sample.batch_size)
  sweep(config, [float(p) for p in flags.FLAGS.p_uncond], Path(flags.FLAGS.workdir))


if __name__ == '__main__':
  config_lib.define_flags()
  flags.mark_flag_as_required('workdir')
  flags.DEFINE_list('p_uncond', '0.1,0.2,0.5', 'Probabilities of dropping the label. Table 1.')
  cli.run(main)
