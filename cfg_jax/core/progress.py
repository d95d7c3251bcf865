"""How long work shows itself: a bar with the time left on a terminal, plain lines elsewhere."""

import sys
import time

import tqdm


class Progress:
  """Counts up to total; `update(n, note)` as work is done, `done()` at the end.

  Elsewhere than on a terminal it prints a line at most every `seconds`, and one at the end.
  """

  def __init__(
    self,
    what: str,
    total: int,
    start: int = 0,
    unit: str = 'it',
    seconds: float = 15.0,
    silent: bool = False,
  ):
    """what: the work's name; start: how much of total an earlier process did; silent: no output."""
    self._what, self._total, self._done, self._unit = what, total, start, unit
    self._seconds, self._begin, self._start = seconds, time.monotonic(), start
    self._last, self._silent = self._begin, silent
    self._bar = None
    if sys.stderr.isatty() and not silent:
      self._bar = tqdm.tqdm(desc=what, total=total, initial=start, unit=unit, dynamic_ncols=True)

  def update(self, n: int = 1, note: str = '') -> None:
    """Adds n; note: a few words that are shown behind the count."""
    self._done += n
    if self._bar is not None:
      self._bar.set_postfix_str(note, refresh=False)
      self._bar.update(n)
    elif time.monotonic() - self._last >= self._seconds:
      self._print(note)

  def done(self, note: str = '') -> None:
    """Ends the bar, or prints the last line."""
    if self._bar is not None:
      self._bar.set_postfix_str(note, refresh=False)
      self._bar.close()
    else:
      self._print(note)

  def _print(self, note):
    if self._silent:
      return
    self._last = time.monotonic()
    elapsed = self._last - self._begin
    rate = (self._done - self._start) / max(elapsed, 1e-9)
    left = (
      f', {(self._total - self._done) / rate:.0f} s left' if 0 < self._done < self._total else ''
    )
    count = f'{self._done}/{self._total} {self._unit}'
    print(f'{self._what}: {count}, {elapsed:.0f} s{left}{"  " + note if note else ""}', flush=True)
