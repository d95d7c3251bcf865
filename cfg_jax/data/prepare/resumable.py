"""Jobs carried out once each, on all cores, across kills: a journal has the results of those done.

The journal is a JSON line for what all jobs have in common, then one for each job, written when its
result is in. A job that was at work when the command was killed leaves no line, and is done again.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent import futures
from multiprocessing import connection
from pathlib import Path

from threadpoolctl import threadpool_limits

from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.core.progress import Progress


def read(journal: Path, head: dict) -> dict[str, dict]:
  """The results so far by job; ValueError where they are of jobs with another head."""
  lines = []
  for text in journal.read_bytes().split(b'\n') if journal.exists() else []:
    try:
      lines.append(files.unseal(json.loads(text), must=bool(lines)))
    except (ValueError, AttributeError, TypeError):
      break  # the last line, torn by a kill; or damage: what follows is done again
  if lines and lines[0] != head:
    raise UserError(
      f'{journal.parent} holds unfinished shards of another source or size: '
      'finish those first, or remove the folder'
    )
  return {line['job']: line for line in lines[1:]}


def run(
  function: Callable[..., dict],
  jobs: dict[str, tuple],
  done: dict[str, dict],
  *,
  journal: Path,
  head: dict,
  workers: int,
  title: str,
) -> dict[str, dict]:
  """Calls `function(*arguments)` for each job not in `done`: all results, in the order of jobs.

  Arguments and results are sent to processes and back; a result counts its 'images', for the
  progress shown. A job that raises ValueError does not hold up the others; after any other error
  no more are begun. Both end in a ValueError, and what is done stays in the journal.
  """
  results = dict(done)
  lines = [head, *map(files.seal, done.values())]
  files.write_text(journal, files.json_lines(lines))
  todo = {name: arguments for name, arguments in jobs.items() if name not in done}
  progress = Progress(title, len(jobs), start=len(done), unit='shards')
  images, failures, begin = 0, [], time.monotonic()
  with journal.open('a') as file, _pool(max(1, min(workers, len(todo)))) as pool:
    names = {pool.submit(function, *arguments): name for name, arguments in todo.items()}
    try:
      for future in futures.as_completed(names):
        try:
          result = {'job': names[future]} | future.result()
        except ValueError as error:
          failures.append(error)
          continue
        except (OSError, RuntimeError) as error:  # a full disk, a worker killed
          failures.insert(0, error)
          pool.shutdown(cancel_futures=True)
          break
        results[result['job']] = result
        file.write(files.json_lines([files.seal(result)]))
        file.flush()
        images += result['images']
        progress.update(1, f'{images / (time.monotonic() - begin):.0f} images/s')
    except KeyboardInterrupt:
      pool.shutdown(wait=False, cancel_futures=True)
      for worker in multiprocessing.active_children():
        worker.terminate()
      raise
  progress.done(f'{images / (time.monotonic() - begin):.0f} images/s')
  if failures:
    raise UserError(
      f'{failures[0]} ({len(results)} of {len(jobs)} shards are done and kept: '
      'mend this and give the same command again)'
    )
  return {name: results[name] for name in jobs}


def _pool(workers: int) -> futures.Executor:
  if workers == 1:  # then this process will do
    return futures.ThreadPoolExecutor(1)
  spawn = multiprocessing.get_context('spawn')
  return futures.ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker)


def _start_worker() -> None:
  """One thread, as other cores have jobs of their own; Ctrl-C is the parent's; ends with it."""
  threadpool_limits(1)
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def end_with_parent():  # a pool's workers would outlive a parent killed by signal 9
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()
