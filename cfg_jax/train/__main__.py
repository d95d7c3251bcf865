"""config → checkpoints.

python -m cfg_jax.train --config configs/digits.py --workdir runs/one [--set method.p_uncond=0.2]
"""

from pathlib import Path

import jax
from absl import flags

from cfg_jax.core import command, processes, runtime
from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import check_path
from cfg_jax.evaluate import owners
from cfg_jax.plan import cost, show
from cfg_jax.train.loop import train


def define_flags() -> None:
  """The command's flags."""
  command.define_config_flags()
  flags.DEFINE_string('workdir', None, 'Folder that holds all of the work.')
  flags.DEFINE_boolean('plan', False, 'Says what the config costs, and does nothing.')
  show.define_flags()
  processes.define_flags()
  flags.register_multi_flags_validator(
    ['workdir', 'plan'],
    lambda given: given['workdir'] or given['plan'],
    'Flag --workdir is missing.',
  )


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  config = command.config_of_file()
  if flags.FLAGS.plan:
    show.main(config)
    return
  check_path(flags.FLAGS.workdir)
  config_lib.check(config, owners.of(config), 1)
  processes.start_by_flags()
  runtime.setup_jax(config.train.batch_size, channels=config.model.channels)
  config_lib.check(config, owners.of(config), jax.device_count())
  train(config, Path(flags.FLAGS.workdir), cost.peak_images_per_s(config))


if __name__ == '__main__':
  define_flags()
  command.run(main)
