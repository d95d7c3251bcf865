"""Several processes that train as one: how they are started, wait for each other and agree.

  srun -n 16 python -m cfg_jax.train --config … --workdir … --distributed

On Slurm, TPU pods, Open MPI and Kubernetes they find each other. Elsewhere each is told where the
first one is, how many there are and which it is:

  … --distributed.coordinator=HOST:PORT --distributed.num_processes=2 --distributed.process_id=0

The work directory must be on a file system that all of them share. With one process, everything
here does nothing.
"""

import hashlib
import signal
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from cfg_jax.core.errors import UserError

T = TypeVar('T')
_ADDRESS = ('coordinator', 'num_processes', 'process_id')


def define_flags() -> None:
  """--distributed, and the three that tell a process what no cluster tells it."""
  flags.DEFINE_boolean('distributed', False, 'Joins the processes of a Slurm job, a TPU pod, ….')
  flags.DEFINE_string('distributed.coordinator', None, 'HOST:PORT of process 0.')
  flags.DEFINE_integer('distributed.num_processes', None, 'How many processes there are.')
  flags.DEFINE_integer('distributed.process_id', None, 'Which of them this is, from 0.')


def start_by_flags() -> None:
  """`start`, where the flags ask for it."""
  address = {name: flags.FLAGS[f'distributed.{name}'].value for name in _ADDRESS}
  if flags.FLAGS.distributed or any(value is not None for value in address.values()):
    start(**address)


def start(
  coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
  """Joins the other processes; before JAX's first use. Without arguments the cluster is asked.

  From here on SIGTERM is JAX's: see `StopSignal`. Raises ValueError where there is no cluster, or
  the arguments do not fit together.
  """
  given = dict(zip(_ADDRESS, (coordinator, num_processes, process_id)))
  missing = [f'--distributed.{name}' for name, value in given.items() if value is None]
  if 0 < len(missing) < len(given):
    raise UserError(f'{" and ".join(missing)} must be given too, or none of the three.')
  if not missing:
    if num_processes < 1:
      raise UserError(f'--distributed.num_processes={num_processes} must be at least 1.')
    if not 0 <= process_id < num_processes:
      raise UserError(
        f'--distributed.process_id={process_id} must be 0 to {num_processes - 1}, '
        f'for --distributed.num_processes={num_processes}.'
      )
    if not coordinator.rpartition(':')[2].isdigit():
      raise UserError(f'--distributed.coordinator={coordinator} must be HOST:PORT.')
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except ValueError:
    if not missing:
      raise
    raise UserError(
      '--distributed finds no cluster here (Slurm, TPU pod, Open MPI, Kubernetes): '
      f'give {", ".join(missing)}.'
    ) from None


def is_first() -> bool:
  """Whether this is the process that writes logs and shows progress."""
  return jax.process_index() == 0


def barrier(where: str) -> None:
  """Returns once all processes are here; where: the same words in each."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(where)


def first_then_others(f: Callable[[], T]) -> T:
  """f() in every process, in process 0 before the others: so that what it builds is built once."""
  try:
    if is_first():
      return f()
  finally:
    barrier('process 0 is first')
  return f()


def share(items: Sequence[T]) -> Sequence[T]:
  """The part of items that is this process's: consecutive ones, as many as the others have."""
  n, i = jax.process_count(), jax.process_index()
  return items[len(items) * i // n : len(items) * (i + 1) // n]


def check_equal(value: str, what: str) -> None:
  """Raises ValueError, in all processes, where they differ in value; what: its name in words."""
  if jax.process_count() == 1:
    return
  digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint32)
  digests = multihost_utils.process_allgather(digest)
  others = [i for i, other in enumerate(digests) if (other != digests[0]).any()]
  if others:
    raise UserError(f'{what} of process {others[0]} differs from that of process 0.')


class StopSignal:
  """While entered, SIGTERM and SIGINT end the work after a step, which is never torn.

  One process notes the signal by itself. Of several, all stop after the same step, whichever of
  them was told: JAX hands SIGTERM on, so SIGINT is turned into it.
  """

  name = ''  # of the signal, once there was one

  def __enter__(self):
    """Takes over the signals."""
    self._several = jax.process_count() > 1
    signals = (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT)
    self._previous = {s: signal.signal(s, self._note) for s in signals}
    return self

  def _note(self, signum, frame):
    del frame
    if self._several:
      signal.raise_signal(signal.SIGTERM)
    else:
      self.name = signal.Signals(signum).name

  def stops_after(self, step: int) -> bool:
    """Whether the work is to end after this step; asked at every one."""
    if self._several and multihost_utils.reached_preemption_sync_point(step):
      self.name = 'SIGTERM'
    return bool(self.name)

  def __exit__(self, *error):
    """Gives them back."""
    for signum, handler in self._previous.items():
      signal.signal(signum, handler)
