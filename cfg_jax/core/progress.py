"""How long work shows itself: a bar with the time left on a terminal, plain lines elsewhere."""

import sys
import time

import tqdm


class Progress:
  """Counts up to total; `update(n, note)` as work is done, `done()` at the end.

  Elsewhere than on a terminal it prints a line at most every `seconds`, and one at the end. Where
  the first of the work also compiles, that is said with its seconds, and counts in no rate and no
  time left.
  """

  def __init__(
    self,
    what: str,
    total: int,
    start: int = 0,
    unit: str = 'it',
    seconds: float = 15.0,
    silent: bool = False,
    compiles: bool = False,
  ):
    """what: the work's name; start: how much of total an earlier process did; silent: no output;
    compiles: whether the first `update` comes after a compilation.
    """
    self._what, self._total, self._done, self._unit = what, total, start, unit
    self._seconds, self._begin, self._start = seconds, time.monotonic(), start
    self._last, self._silent, self._bar = self._begin, silent, None
    self._compiling = compiles
    if compiles and not silent:
      file = sys.stderr if sys.stderr.isatty() else sys.stdout
      print(f'{what}: compiling …', file=file, flush=True)
    elif not silent:
      self._open_bar()

  def update(self, n: int = 1, note: str = '') -> None:
    """Adds n; note: a few words that are shown behind the count."""
    self._done += n
    if self._compiling:
      self._compiled(note)
    elif self._bar is not None:
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

  def _compiled(self, note):
    """From here on rates are of the work alone."""
    now = time.monotonic()
    seconds, self._compiling = now - self._begin, False
    self._begin, self._start = now, self._done
    if not self._silent:
      self._open_bar()
    if self._bar is None:
      self._print(', '.join(filter(None, (f'compiled in {seconds:.0f} s', note))))

  def _open_bar(self):
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        desc=self._what,
        total=self._total,
        initial=self._done,
        unit=self._unit,
        dynamic_ncols=True,
      )

  def _print(self, note):
    if self._silent:
      return
    self._last = time.monotonic()
    elapsed = self._last - self._begin
    made = self._done - self._start
    left = ''
    if made and elapsed > 0 and self._done < self._total:
      left = f', {(self._total - self._done) * elapsed / made:.0f} s left'
    count = f'{self._done}/{self._total} {self._unit}'
    print(f'{self._what}: {count}, {elapsed:.0f} s{left}{"  " + note if note else ""}', flush=True)
