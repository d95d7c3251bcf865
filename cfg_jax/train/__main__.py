"""config → checkpoints.

python -m cfg_jax.train --config configs/digits.py --workdir runs/one [--config.train.p_uncond=0.2]
"""

from pathlib import Path

import jax
from absl import flags

from cfg_jax.core import command as cli
from cfg_jax.core import config as config_lib
from cfg_jax.core import processes, sharding
from cfg_jax.plan import show as plan
from cfg_jax.train.loop import make_optimizer, make_train_step, train


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  config = config_lib.of_flags()
  if flags.FLAGS.plan:
    optimizer = make_optimizer(config.train)
    one_device = sharding.data_mesh(jax.devices()[:1])
    plan.main(config, optimizer, make_train_step(config, optimizer, one_device))
    return
  processes.start_by_flags()
  sharding.setup_jax(config.train.batch_size, channels=config.model.channels)
  train(config, Path(flags.FLAGS.workdir))


if __name__ == '__main__':
  config_lib.define_flags()
  plan.define_flags()
  processes.define_flags()
  flags.register_multi_flags_validator(
    ['workdir', 'plan'],
    lambda given: given['workdir'] or given['plan'],
    'Flag --workdir is missing.',
  )
  cli.run(main)
