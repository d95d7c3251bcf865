"""Evaluates each new checkpoint of a run while it trains, without stalling the training at all.

  python -m cfg_jax.follow --workdir runs/one --w 0,1 --num_samples 2000

It is a process of its own, to be given devices of its own (another host, or CUDA_VISIBLE_DEVICES):
training neither waits for it nor shares its memory. Where it is slower than the training it takes
the newest checkpoint and leaves out those between. It ends after the run's last step. Its lines in
evals.jsonl are as `generate` and `evaluate` would have them by hand.
"""

import time
from pathlib import Path

import jax
import ml_collections
from absl import flags

from cfg_jax.core import command, runtime
from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import steps_on_disk
from cfg_jax.core.errors import UserError
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.evaluate.runs import evaluate
from cfg_jax.generate.__main__ import config_of_flags, define_sample_flags
from cfg_jax.generate.draw import generate

SECONDS = 20  # between two looks for a new checkpoint


def follow(
  config: ml_collections.ConfigDict, workdir: Path, reference_path: str | None = None
) -> None:
  """Draws and evaluates config.sample at the newest checkpoint, until that is the run's last.

  Raises UserError as `generate` and `evaluate` do.
  """
  config_lib.check(config, OWNERS, jax.device_count())
  step = None
  while step is None or step < config_lib.of_run(workdir).train.num_steps:
    newest = max(steps_on_disk(workdir), default=None)
    if newest == step:
      time.sleep(SECONDS)
      continue
    step = newest
    try:
      generate(config, workdir, step)
    except UserError:
      if step in steps_on_disk(workdir):
        raise
      continue  # training has removed it, having saved newer ones
    evaluate(config, workdir, step, reference_path=reference_path)


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  if flags.FLAGS.step is not None:
    raise UserError(
      f'--step={flags.FLAGS.step}: each new checkpoint is taken; see cfg_jax.evaluate.'
    )
  config = config_of_flags()
  config_lib.check(config, OWNERS, 1)
  runtime.setup_jax(config.sample.batch_size, channels=config.model.channels)
  follow(config, Path(flags.FLAGS.workdir), flags.FLAGS.reference)


def define_flags() -> None:
  """The command's flags, those of `generate` among them."""
  define_sample_flags()
  flags.DEFINE_string('reference', None, 'Statistics to compare with, not the training data.')


if __name__ == '__main__':
  define_flags()
  flags.mark_flag_as_required('workdir')
  command.run(main)
