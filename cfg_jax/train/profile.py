"""On demand, a profile of the steps that a run is at."""

import signal
from pathlib import Path
from typing import Any

import jax

from cfg_jax.core import runtime


class ProfileSignal:
  """While entered, SIGUSR1 has the next ten steps traced by `jax.profiler`, for TensorBoard.

  Of several processes each traces its own devices, when it is told itself.
  """

  NUM_STEPS = 10

  def __init__(self, workdir: Path):
    """The trace goes to workdir/tensorboard/plugins/profile."""
    self._folder = Path(workdir) / 'tensorboard'
    self._asked, self._left = False, 0

  def __enter__(self):
    """Takes over the signal."""
    self._previous = signal.signal(signal.SIGUSR1, self._note)
    return self

  def _note(self, signum, frame):
    del signum, frame
    self._asked = True

  def before_step(self, state: Any) -> None:
    """Begins or ends a trace, if it is time; state: what the last step gave, to be waited for."""
    if self._left:
      self._left -= 1
      if not self._left:
        self._stop(state)
    elif self._asked:
      self._asked, self._left = False, self.NUM_STEPS
      jax.profiler.start_trace(self._folder)

  def _stop(self, state):
    jax.block_until_ready(state)
    jax.profiler.stop_trace()
    print(f'Profiled {self.NUM_STEPS} steps: tensorboard --logdir {self._folder}', flush=True)
    found, all_ = runtime.programs['from the cache'], runtime.programs['asked for']
    print(f'{found} of {all_} compiled programs came from the cache.', flush=True)

  def __exit__(self, *error):
    """Gives the signal back, and ends a trace that is on."""
    signal.signal(signal.SIGUSR1, self._previous)
    if self._left:
      jax.profiler.stop_trace()
