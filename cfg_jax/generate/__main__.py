"""checkpoint → samples: for every w of a list, in files that a restart does not redo.

  python -m cfg_jax.generate --workdir runs/digits/p_uncond=0.1 [--w 0,1]
    [--set sample.sampler.num_steps=64]
    [--set sample.sampler.name=dpmpp --set sample.sampler.grid=edm]

Settings not given are the run's own `config.sample`.
"""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags

from cfg_jax.core import command, processes, runtime
from cfg_jax.core import config as config_lib
from cfg_jax.generate.draw import generate
from cfg_jax.methods.owners import OWNERS


def define_flags() -> None:
  """The command's flags."""
  define_sample_flags()
  processes.define_flags()


def define_sample_flags() -> None:
  """The flags of all commands that read samples of a run: which run, which checkpoint, which w."""
  flags.DEFINE_string('workdir', None, 'The run, as cfg_jax.train left it.')
  flags.DEFINE_integer('step', None, 'The checkpoint; by default the newest intact one.')
  flags.DEFINE_string('w', None, 'Guidance strengths: short for --set sample.guidance.w=0,0.5,1.')
  flags.DEFINE_integer('num_samples', None, 'Short for --set sample.num_samples=….')
  command.define_set_flag()


def config_of_flags() -> ml_collections.ConfigDict:
  """The config of the run at --workdir, changed as the flags say."""
  return command.config_of_run(
    [
      *command.shorthand('w', 'sample.guidance.w'),
      *command.shorthand('num_samples', 'sample.num_samples'),
    ]
  )


def main(argv: Sequence[str]) -> None:
  """The command."""
  del argv
  config = config_of_flags()
  config_lib.check(config, OWNERS, 1)
  processes.start_by_flags()
  runtime.setup_jax(config.sample.batch_size, channels=config.model.channels)
  generate(config, Path(flags.FLAGS.workdir), flags.FLAGS.step)


if __name__ == '__main__':
  define_flags()
  flags.mark_flag_as_required('workdir')
  command.run(main)
