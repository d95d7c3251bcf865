"""Locks on files, which the system lets go of however their process ends."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from cfg_jax.core import files


@contextlib.contextmanager
def claim(path: Path, shared: bool = False, seconds: float = 2.0) -> Iterator[bool]:
  """Holds the lock at path, by the system's leave; yields False where another process has it.

  The file says which process holds it. shared: with others that share it. seconds: how long to try,
  since `held` takes the lock for a moment to look.
  """
  files.make_folder(path.parent)
  with path.open('a+') as file:
    deadline = time.monotonic() + seconds
    while not (claimed := _lock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)):
      if time.monotonic() > deadline:
        break
      time.sleep(0.1)
    if claimed:
      file.truncate(0)
      file.write(f'{os.getpid()} {socket.gethostname()}')
      file.flush()
    yield claimed


def held(path: Path) -> bool:
  """Whether any process holds the lock at path."""
  if not path.exists():
    return False
  with path.open('r+') as file:
    return not _lock(file, fcntl.LOCK_EX)


def holder(path: Path) -> int | None:
  """The id of the process that holds the lock at path, if it is on this machine."""
  pid, _, host = path.read_text().partition(' ') if held(path) else ('', '', '')
  return int(pid) if pid.isdecimal() and host == socket.gethostname() else None


def _lock(file, kind):
  try:
    fcntl.flock(file, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:
    pass  # a file system without locks: there is none to respect
  return True
