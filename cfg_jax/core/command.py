"""What all commands share: how they start, and how they fail.

A ValueError raised by this package is meant for the user: its text goes to stderr, and the exit
code is 2. Any other error is a bug, of ours or of a library, and keeps its traceback.
"""

import logging as python_logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging

_OURS = tuple(str(Path(__file__).parents[1] / name) for name in ('cfg_jax', 'experiments'))


def run(main: Callable[[list[str]], None]) -> None:
  """Parses the flags and calls main(argv), with its errors told as the module says."""
  try:
    app.run(main, flags_parser=_parse)
  except ValueError as error:
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    if not raised_in.startswith(_OURS):
      raise
    print(error, file=sys.stderr)
    sys.exit(2)


def hush_libraries() -> None:
  """Logs errors alone, but for what this package says, which is meant to be read."""
  logging.set_verbosity(logging.ERROR)  # Orbax tells each save in forty lines, TFDS worries
  python_logging.getLogger('cfg_jax').setLevel('INFO')


def _parse(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(argv)
    hush_libraries()
    return rest
  except (flags.Error, AttributeError, KeyError, TypeError) as error:
    # config_flags raises the last three for an unknown field or a value of the wrong type.
    line = str(error.args[0]).strip('"\'').replace('\\n', '\n').splitlines()
    raise ValueError(' '.join(line)) from error
