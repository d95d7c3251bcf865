"""checkpoint → samples: Algorithm 2, for every w of a list, in files that a restart does not redo.

  python -m cfg_jax.generate --workdir runs/digits/p_uncond=0.1 [--w 0,1 --num_steps 64]

Settings not given are the run's own `config.sample`.
"""

from pathlib import Path

import ml_collections
from absl import flags

from cfg_jax.core import command as cli
from cfg_jax.core import config as config_lib
from cfg_jax.core import processes, sharding
from cfg_jax.generate.draw import generate


def define_flags() -> None:
  """--workdir, --step, and a flag for each sampler setting that overrides the run's own."""
  flags.DEFINE_string('workdir', None, 'The run, as cfg_jax.train left it.')
  flags.DEFINE_integer('step', None, 'The checkpoint; by default the newest whole one.')
  flags.DEFINE_list('w', None, 'Guidance strengths, such as 0,0.5,1. Sections 3 and 4.')
  flags.DEFINE_integer('num_steps', None, 'T of Algorithm 2.')
  # absl's own --v is short for --verbosity; here it is the paper's.
  flags.DEFINE_float('v', None, 'Interpolates the log variance. Section 2.', allow_override=True)
  flags.DEFINE_boolean('clip_x', None, 'Whether to clip every x̃ to [−1, 1].')
  flags.DEFINE_integer('num_samples', None, 'Samples for each w.')
  flags.DEFINE_integer('batch_size', None, 'Samples drawn at once.')
  flags.DEFINE_string('labels', None, "'balanced', 'random', or one class.")
  flags.DEFINE_integer('seed', None, 'Of noise and labels.')
  flags.DEFINE_boolean('ema', None, 'Whether to sample with the averaged weights.')


def config_from_flags() -> ml_collections.ConfigDict:
  """The config of the run at --workdir, with `sample` overridden by the flags that are given."""
  config = config_lib.of_run(Path(flags.FLAGS.workdir))
  for name in config.sample:
    if flags.FLAGS[name].value is not None:
      config.sample[name] = flags.FLAGS[name].value
  try:
    config.sample.w = tuple(float(w) for w in config.sample.w)
  except ValueError:
    raise ValueError(f'--w={",".join(config.sample.w)} must be numbers, such as 0,0.5,1.') from None
  return config


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  config = config_from_flags()
  processes.start_by_flags()
  sharding.setup_jax(config.sample.batch_size, channels=config.model.channels)
  generate(config, Path(flags.FLAGS.workdir), flags.FLAGS.step)


if __name__ == '__main__':
  define_flags()
  processes.define_flags()
  flags.mark_flag_as_required('workdir')
  cli.run(main)
