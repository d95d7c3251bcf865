"""How a command fails: in one line where it can be helped, with a traceback where it is a bug.

What libraries say at length goes to a log file, whose name is told.
"""

import contextlib
import errno
import logging as python_logging
import os
import re
import sys
import threading
import traceback
import warnings
from typing import NamedTuple

from absl import logging

from cfg_jax.core.errors import UserError

# What a disk or its rights refuse: nobody's bug, and nothing that was complete is lost.
OF_THE_SYSTEM = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
  *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE),
)
REMEDY = 'Mend that and give the same command again: it goes on from what is complete.'
OF_MEMORY = ('RESOURCE_EXHAUSTED', 'Out of memory', 'out of memory')


class Told(NamedTuple):
  """A failure's one line (a UserError may have more), and the command's exit code."""

  line: str
  code: int


def told(error: BaseException) -> Told | None:
  """What to say of an error, None for a bug.

  A UserError is its text, code 2; Ctrl-C is 130; what the system refuses (no space, no permission,
  no memory) is 1, also where a library wraps it in an error of its own.
  """
  if isinstance(error, UserError):
    return Told(str(error), 2)
  if isinstance(error, KeyboardInterrupt):
    return Told('Interrupted: the same command goes on from what is complete.', 130)
  for cause in _chain(error):
    if isinstance(cause, MemoryError) or any(words in str(cause) for words in OF_MEMORY):
      return Told(
        'There is not enough memory for this: try a smaller batch_size or network, or more '
        f'train.microbatches.{_details(error)}',
        1,
      )
    if isinstance(cause, OSError) and cause.errno in OF_THE_SYSTEM:
      where, why = cause.filename, cause.strerror
    else:
      text = f'{cause}'
      why = next((w for w in map(os.strerror, OF_THE_SYSTEM) if w in text), None)
      where = re.search(r'(?<![\w.])/[^\s"\':;,\]]+', text)
      where = where and where[0]
    if why:
      details = '' if error is cause and isinstance(cause, OSError) else _details(error)
      return Told(f'{where or "a file"}: {why}. {REMEDY}{details}', 1)
  return None


def _chain(error):
  """The error, and what it came from."""
  seen = []
  while error is not None and error not in seen:
    seen.append(error)
    error = error.__cause__ or error.__context__
  return seen


def _details(error: BaseException) -> str:
  """Writes the traceback into the log file; a sentence that names it, if it can be written."""
  _keep(''.join(traceback.format_exception(error)))
  return f' Details: {LOG.baseFilename}' if LOG and os.path.exists(LOG.baseFilename) else ''


class _Log(python_logging.FileHandler):
  """A file that is made at the first message, and none where it can't be."""

  def emit(self, record):
    with contextlib.suppress(OSError, ValueError):
      super().emit(record)

  def handleError(self, record):
    pass


LOG: _Log | None = None


def _keep(text):
  """Writes a text into the log file."""
  if LOG:
    LOG.emit(python_logging.makeLogRecord({'msg': text}))


def hush_libraries() -> None:
  """Shows what this package says alone; errors of libraries, and of threads, go to the log file."""
  global LOG
  logging.set_verbosity(logging.ERROR)  # Orbax tells each save in forty lines, TFDS worries
  python_logging.getLogger('cfg_jax').setLevel('INFO')
  if LOG is None:
    folder = os.environ.get('TMPDIR', '/tmp')
    LOG = _Log(f'{folder}/cfg_jax-{os.getpid()}.log', delay=True)
    LOG.setLevel('ERROR')
    LOG.addFilter(lambda record: not record.name.startswith('cfg_jax'))
    python_logging.getLogger().addHandler(LOG)
    shown = logging.get_absl_handler()
    shown.addFilter(lambda record: record.name.startswith('cfg_jax'))
    threading.excepthook = _of_thread
    sys.unraisablehook = _of_thread  # of a library's own clearing up
    warnings.showwarning = _warn


def _warn(message, category, filename, lineno, file=None, line=None):
  """What this package warns of is shown, in one line; what others do is for the log."""
  if 'cfg_jax' in filename:
    print(f'{message}', file=sys.stderr)
  else:
    _keep(warnings.formatwarning(message, category, filename, lineno, line))


def _of_thread(args):
  """An error that nobody catches: whoever waits for its thread is told; the rest is for the log."""
  _keep(''.join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)))
