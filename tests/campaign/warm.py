"""Commands as processes of their own, forked from this one, which has imported everything.

A fresh Python takes three seconds to import JAX and its like. A fork takes none, and is a process
like any other: it can be killed, and its memory, flags and files are its own. JAX must not have
been used in this process, since its threads would not be in the fork.
"""

import atexit
import contextlib
import importlib
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

IMPORTED = (
  *(
    'encodings.cp437',
    'jax',
    'orbax.checkpoint',
    'grain',
    'tensorflow_datasets',
    'sklearn.datasets',
    'submitit',
  ),
  *('matplotlib', 'matplotlib.pyplot', 'jinja2', 'PIL.PngImagePlugin', 'PIL.JpegImagePlugin'),
  *(f'cfg_jax.{stage}.__main__' for stage in ('train', 'generate', 'evaluate', 'report', 'plan')),
  *('cfg_jax.follow.__main__', 'cfg_jax.sweep.__main__', 'cfg_jax.data.prepare.__main__'),
  *('cfg_jax.data.digits', 'cfg_jax.evaluate.extractors.digits', 'experiments.figure2_gaussians'),
)


def warm_up() -> None:
  """Imports what the commands do."""
  for name in IMPORTED:
    importlib.import_module(name)
  assert threading.active_count() == 1, threading.enumerate()


class Ended(NamedTuple):
  """How a command ended: its exit code (minus the signal that killed it), output and seconds."""

  code: int
  out: str
  err: str
  seconds: float


class Started:
  """A command that runs."""

  def __init__(self, pid: int, out: Path, err: Path):
    """The process, and the files of its output."""
    self.pid, self._out, self._err, self._begin = pid, out, err, time.monotonic()
    self.code = None

  def running(self) -> bool:
    """Whether it still runs."""
    if self.code is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      if pid:
        self.code = os.waitstatus_to_exitcode(status)
    return self.code is None

  def kill(self, signum: int = signal.SIGKILL) -> None:
    """Sends a signal, if it still runs."""
    if self.running():
      os.kill(self.pid, signum)

  def wait(self, timeout: float = 300.0) -> Ended:
    """Waits for its end; one that takes longer than timeout is killed, and its code is −9."""
    while self.running():
      if time.monotonic() - self._begin > timeout:
        os.kill(self.pid, signal.SIGKILL)
      time.sleep(0.005)
    texts = (path.read_text(errors='replace') for path in (self._out, self._err))
    return Ended(self.code, *texts, time.monotonic() - self._begin)


def start(
  command: str | Callable[[], None],
  *argv: object,
  logs: Path,
  before: Callable[[], None] | None = None,
  **env: str,
) -> Started:
  """Starts `python -m command argv…`, or a function, with its output in logs/out and logs/err.

  before: called in the new process first. env: its environment beside what it inherits; None takes
  a name out.
  """
  logs.mkdir(parents=True, exist_ok=True)
  out, err = logs / 'out', logs / 'err'
  sys.stdout.flush()
  sys.stderr.flush()
  if pid := os.fork():
    return Started(pid, out, err)
  code = 1
  try:
    for fd, path in ((1, out), (2, err)):
      file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
      os.dup2(file, fd)
      os.close(file)
    for name, value in env.items():
      os.environ.pop(name, None)
      if value is not None:
        os.environ[name] = value
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
    sys.argv = [str(command), *map(str, argv)]
    if before:
      before()
    code = _run(command)
  finally:
    os._exit(code)


def run(*args, timeout: float = 300.0, **kwargs) -> Ended:
  """`start`, and waits for its end."""
  return start(*args, **kwargs).wait(timeout)


def _run(command) -> int:
  """Runs it as the interpreter does; returns the exit code."""
  code = 0
  try:
    if callable(command):
      command()
    else:
      for name in (command, f'{command}.__main__'):  # else it warns that it was imported
        if not hasattr(sys.modules.get(name), '__path__'):
          sys.modules.pop(name, None)
      runpy.run_module(command, run_name='__main__', alter_sys=True)
  except SystemExit as end:
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
    if isinstance(end.code, str):
      print(end.code, file=sys.stderr)
  except BaseException:
    traceback.print_exc()
    code = 1
  threading._shutdown()
  atexit._run_exitfuncs()
  for file in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):
      file.flush()
  return code
