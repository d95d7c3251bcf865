"""What all commands share: their flags, how they start, and how they fail.

A setting is changed in one way everywhere, whether the config is a file or a run's:

  --set train.batch_size=128 --set sample.guidance.w=0,0.5,1

`--config.train.batch_size=128`, the spelling of ml_collections' flags, is the same.
"""

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_collections
from absl import app, flags

from cfg_jax.core import config as config_lib
from cfg_jax.core import config_file, failures
from cfg_jax.core.errors import UserError

# --config.FIELD=VALUE is --set FIELD=VALUE, and --slurm.FIELD=VALUE is --slurm FIELD=VALUE.
DOTTED = {'config': 'set', 'slurm': 'slurm'}
DASHES_AND_QUOTES = '-–—−\'"‘’“”'  # that a word processor makes of those typed


def run(main: Callable[[list[str]], None], words: bool = False) -> None:
  """Parses the flags and calls main(argv), and tells of failures as `failures.told` says.

  words: whether argv may hold words beside flags; by default they are an error.
  """

  def checked(argv: list[str]) -> None:
    if len(argv) > 1 and not words:
      meant = argv[1].strip(DASHES_AND_QUOTES)
      raise UserError(f'{argv[1]!r} is left over: a flag starts with --, as in --{meant}.')
    main(argv)

  try:
    app.run(checked, flags_parser=_parse)
  except (Exception, KeyboardInterrupt) as error:
    told = failures.told(error)
    if told is None:
      raise
    print(told.line, file=sys.stderr)
    sys.exit(told.code)


def define_set_flag() -> None:
  """--set, which changes a config."""
  flags.DEFINE_multi_string('set', [], 'FIELD=VALUE, or FIELD=VALUE,VALUE,…: sets a field.')


def define_config_flags(default: str | None = None, required: bool = True) -> None:
  """--config, a Python file, and --set."""
  flags.DEFINE_string('config', default, 'Config file, such as configs/digits.py.')
  if required:
    flags.mark_flag_as_required('config')
  define_set_flag()


def config_of_file() -> ml_collections.ConfigDict:
  """The config that --config names, changed as --set says; UserError where either is wrong."""
  return config_lib.change(config_file.read(flags.FLAGS.config), flags.FLAGS.set)


def config_of_run(changes: Sequence[str] = ()) -> ml_collections.ConfigDict:
  """The config of the run at --workdir, changed as --set, and then `changes`, say."""
  config = config_lib.of_run(Path(flags.FLAGS.workdir))
  return config_lib.change(config, [*flags.FLAGS.set, *changes])


def _parse(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(_undotted(argv))
  except flags.UnrecognizedFlagError as error:
    near = difflib.get_close_matches(error.flagname, list(flags.FLAGS), 1)
    hint = f'did you mean --{near[0]}?' if near else 'see --help.'
    raise UserError(f'--{error.flagname} is no flag of this command; {hint}') from None
  except flags.Error as error:
    line = str(error.args[0]).strip().splitlines()
    raise UserError(' '.join(line)) from None
  failures.hush_libraries()
  return rest


def _undotted(argv: list[str]) -> list[str]:
  """`--config.FIELD=VALUE` and `--config.FIELD VALUE` as `--set FIELD=VALUE`: see `DOTTED`."""
  out, words = [], iter(argv)
  for word in words:
    name, equals, value = word.lstrip('-').partition('=')
    flag, dot, field = name.partition('.')
    if word.startswith('-') and dot and DOTTED.get(flag) in flags.FLAGS:
      out += [f'--{DOTTED[flag]}', f'{field}={value if equals else next(words, "")}']
    else:
      out.append(word)
  return out


def shorthand(name: str, field: str) -> list[str]:
  """[FIELD=VALUE] where the flag --name, short for --set FIELD=…, is given; else nothing."""
  value = flags.FLAGS[name].value
  return [] if value is None else [f'{field}={value}']
