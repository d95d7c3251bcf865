"""checkpoint → samples: for every w of a list, in files that a restart does not redo.

  python -m cfg_jax.generate --workdir runs/digits/p_uncond=0.1 [--w 0,1]
    [--set sample.sampler.num_steps=64]
    [--set sample.sampler.name=dpmpp --set sample.sampler.grid=edm]
  python -m cfg_jax.generate --pretrained digits --w 0,1,4 --out grid.png
  python -m cfg_jax.generate --pretrained digits --labels 3 --out threes.png

Settings not given are the run's own `config.sample`. --out is a picture of what is drawn: rows =
classes (of one class, its first ten images), columns = w. --pretrained draws from weights inside
the package: a --workdir that is empty or does not exist becomes a run that holds them, for
`evaluate` and all else; without one only the picture is left, of one image a row.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags

from cfg_jax import methods
from cfg_jax.core import command, processes, runtime
from cfg_jax.core import config as config_lib
from cfg_jax.core.errors import UserError
from cfg_jax.generate import pretrained
from cfg_jax.generate.draw import GRID_ROWS, generate, grid_path
from cfg_jax.generate.store import sample_sets
from cfg_jax.methods import owners


def define_flags() -> None:
  """The command's flags."""
  define_sample_flags()
  flags.DEFINE_string('labels', None, "Short for --set sample.labels=…: one class, 'balanced', ….")
  flags.DEFINE_boolean('as_adm', False, 'Short for --set sample.quantisation=truncate.')
  flags.DEFINE_string('out', None, 'A PNG to write: rows = classes, columns = w.')
  flags.DEFINE_string('pretrained', None, 'Weights inside the package: digits.')
  processes.define_flags()


def define_sample_flags() -> None:
  """The flags of all commands that read samples of a run: which run, which checkpoint, which w."""
  flags.DEFINE_string('workdir', None, 'The run, as cfg_jax.train left it.')
  flags.DEFINE_integer('step', None, 'The checkpoint; by default the newest intact one.')
  flags.DEFINE_string('w', None, 'Guidance strengths: short for --set sample.guidance.w=0,0.5,1.')
  flags.DEFINE_integer('num_samples', None, 'Short for --set sample.num_samples=….')
  command.define_set_flag()


def config_of_flags(*changes: str) -> ml_collections.ConfigDict:
  """The config of the run at --workdir, changed as the flags, and then `changes`, say."""
  return command.config_of_run([*_changes(), *changes])


def _changes() -> list[str]:
  return [
    *command.shorthand('w', 'sample.guidance.w'),
    *command.shorthand('num_samples', 'sample.num_samples'),
  ]


def main(argv: Sequence[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS
  if not given.workdir and not (given.pretrained and given.out):
    raise UserError('Give --workdir, or --pretrained and --out.')
  if given.out and not given.out.endswith('.png'):
    raise UserError(f'--out={given.out} must end in .png.')
  own = command.shorthand('labels', 'sample.labels')
  own += ['sample.quantisation=truncate'] if given.as_adm else []
  if given.pretrained:
    few = [] if given.workdir else [f'sample.num_samples={GRID_ROWS}']
    changes = [*few, *given.set, *_changes(), *own]
    config = config_lib.change(pretrained.read(given.pretrained).config, changes)
  else:
    config = config_of_flags(*own)
  if not methods.draws(config):
    raise UserError(
      f'--workdir={given.workdir} is a run of {config.method.name}, which draws no samples: name '
      'it as a guide, --set sample.guidance.guide=FOLDER, of a run that does.'
    )
  config_lib.check(config, owners.OWNERS, 1)
  processes.start_by_flags()
  runtime.setup_jax(config.sample.batch_size, channels=config.model.channels)
  with contextlib.ExitStack() as stack:
    if given.workdir:
      workdir = Path(given.workdir)
    else:  # named for the progress that it shows
      workdir = Path(stack.enter_context(tempfile.TemporaryDirectory())) / given.pretrained
    if given.pretrained:
      pretrained.make_run(given.pretrained, workdir)
    step = generate(config, workdir, given.step)
    if given.out and processes.is_first():
      Path(given.out).parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(grid_path(sample_sets(config.sample, step), workdir), given.out)


if __name__ == '__main__':
  define_flags()
  command.run(main)
