"""SIGKILL at any time and inside writes, and SIGTERM: what is gone on with is as if undisturbed."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.campaign import warm
from tests.campaign.world import STEPS, World, differences, intact, results

# A write under way: `files.atomic`, Orbax, a shard that is prepared, TFDS building a data set.
WRITES = ('.part', '.orbax-checkpoint-tmp', '.partial-', 'incomplete')
# Of each command: how often it is killed in a round, how many writes are let pass at most before it
# is, and the seconds within which it is killed otherwise.
PLAN = {
  'train': (6, 3, 6.0),
  'generate': (4, 3, 6.0),
  'evaluate': (4, 1, 2.0),
  'report': (2, 0, 1.0),
}


def writes(folder: Path) -> set[str]:
  """Files and folders below `folder` that are being written, or were when their process died."""
  found, todo = set(), [str(folder)]
  while todo:
    with contextlib.suppress(OSError):
      for entry in os.scandir(todo.pop()):
        if any(mark in entry.name for mark in WRITES):
          found.add(entry.path)
        elif entry.is_dir(follow_symlinks=False) and not entry.name.isdigit():
          todo.append(entry.path)
  return found


def kill(
  started: warm.Started, folder: Path, dice: random.Random, skips: int, seconds: float
) -> dict | None:
  """Kills inside a write, mostly, or else at a time up to `seconds`; None if it ended before.

  Which write, of the first and `skips` more, is left to chance. `inside`: a file was being written,
  and lies there unfinished.
  """
  before = writes(folder)
  aimed, skip = dice.random() < 0.8, dice.randint(0, skips)
  deadline, seen = time.monotonic() + dice.uniform(0.3, seconds), set()
  while started.running():
    if aimed:
      new = writes(folder) - before - seen
      if new and skip:
        skip, seen = skip - 1, seen | new
      elif new:
        break
    elif time.monotonic() > deadline:
      break
    time.sleep(0.0005)
  started.kill()
  ended = started.wait()
  if ended.code != -signal.SIGKILL:
    return None
  return {'inside': bool(writes(folder) - before), 'aimed': aimed}


def round_of_run(world: World, trial: Path, dice: random.Random) -> Iterator[dict]:
  """A run, each of whose commands is killed some times; then brought to its end and compared."""
  shutil.rmtree(trial, ignore_errors=True)
  workdir, data = trial / 'run', trial / 'data'
  shutil.copytree(world.data, data)
  shutil.rmtree(data / 'references', ignore_errors=True)
  logs = trial / 'logs'
  for name, command in world.commands(workdir, data).items():
    times, *limits = PLAN[name]
    for _ in range(times):
      killed = kill(warm.start(*command, logs=logs), trial, dice, *limits)
      if killed is None:  # it came to its end
        break
      yield {'kind': name, **killed}
    ended = warm.run(*command, logs=logs)
    if ended.code or 'Traceback' in ended.err:
      yield {'kind': name, 'lost': f'code {ended.code}: {ended.err[-300:]}'}
      return
  lost = differences(results(workdir), results(world.whole))
  shown = warm.run(intact(workdir), logs=logs)
  if shown.out.strip() != str(STEPS):
    lost.append(f'intact: {shown.out}{shown.err[-300:]}')
  if lost:
    yield {'kind': 'run', 'lost': lost}


def pictures(folder: Path) -> Path:
  """Two classes of 40 small pictures each."""
  draw = np.random.default_rng(0)
  for i in range(80):
    path = folder / 'ab'[i % 2] / f'{i:03}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
  return folder


def many_shards() -> None:
  """A shard for each image."""
  from cfg_jax.data.prepare import sources

  sources.SHARD_BYTES = 1


def digest_of(name: str, data: Path) -> Callable[[], None]:
  """A function that prints the digest of a data set's images and labels, and its fingerprint."""

  def show() -> None:
    from cfg_jax.data import registry

    source = registry.get(name, data).open(data, 'train')
    found = hashlib.sha256(registry.fingerprint(source).encode())
    for i in range(len(source)):
      found.update(source[i]['image'].tobytes() + bytes([source[i]['label']]))
    print(found.hexdigest())

  return show


def round_of_data(world: World, trial: Path, dice: random.Random) -> Iterator[dict]:
  """A data set of one's own, and the digits, which are built on first use."""
  shutil.rmtree(trial, ignore_errors=True)
  source, logs = pictures(trial / 'pictures'), trial / 'logs'

  def prepare(data: Path):
    argv = ('own', '--source', source, '--data_dir', data, '--size', 16, '--workers', 1)
    return warm.start('cfg_jax.data.prepare', *argv, logs=logs, before=many_shards)

  whole, data = trial / 'whole', trial / 'data'
  for _ in range(5):
    if (killed := kill(prepare(data), trial, dice, 9, 1.0)) is None:
      break
    yield {'kind': 'prepare', **killed}
  for folder in (whole, data):
    ended = prepare(folder).wait()
    if ended.code not in (0, 2) or 'Traceback' in ended.err:
      yield {'kind': 'prepare', 'lost': ended.err[-300:]}
  for _ in range(3):
    built = warm.start(digest_of('digits', data), logs=logs)
    if (killed := kill(built, trial, dice, 0, 2.0)) is None:
      break
    yield {'kind': 'digits', **killed}
  for name in ('own', 'digits'):
    found = [warm.run(digest_of(name, d), logs=logs) for d in (whole, data)]
    if found[0].out.splitlines()[-1:] != found[1].out.splitlines()[-1:] or found[1].code:
      yield {'kind': name, 'lost': found[1].err[-300:] or 'other records'}


def round_of_sweep(world: World, trial: Path, dice: random.Random) -> Iterator[dict]:
  """A sweep whose launcher, jobs, or both, are killed; then brought to its end and compared."""
  whole = world.folder / 'undisturbed' / 'sweep'
  logs = trial / 'logs'
  shutil.rmtree(trial, ignore_errors=True)
  workdir = trial / 'sweep'
  for _ in range(5):
    started, deadline = warm.start(*world.sweep(workdir), logs=logs), None
    deadline = time.monotonic() + dice.uniform(3, 14)
    while started.running() and time.monotonic() < deadline:
      time.sleep(0.01)
    if not started.running():
      break
    which, before = dice.choice(('launcher', 'job', 'both')), writes(workdir)
    if which != 'job':
      started.kill()
    for pid in _workers(workdir) if which != 'launcher' else ():
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    started.wait(120)
    yield {'kind': f'sweep, {which}', 'inside': bool(before) and which != 'launcher'}
  ended = warm.run(*world.sweep(workdir), logs=logs)
  if ended.code:
    yield {'kind': 'sweep', 'lost': f'code {ended.code}: {ended.err[-500:]}'}
    return
  for name in ('report.csv', 'report.html'):
    if (workdir / name).read_bytes() != (whole / name).read_bytes():
      yield {'kind': 'sweep', 'lost': f'{name} differs'}


def _workers(workdir: Path) -> list[int]:
  """The processes that hold the models' locks, or have written that they do."""
  pids = []
  for lock in workdir.glob('jobs/*/lock'):
    pid = lock.read_text().partition(' ')[0]
    if pid.isdecimal() and Path(f'/proc/{pid}/cmdline').exists():
      words = Path(f'/proc/{pid}/cmdline').read_bytes()
      pids += [int(pid)] if b'submitit' in words else []
  return pids


def stop(world: World, trial: Path, dice: random.Random) -> Iterator[dict]:
  """SIGTERM or Ctrl-C to a training: seconds until all is saved and it has ended."""
  shutil.rmtree(trial, ignore_errors=True)
  workdir = trial / 'run'
  flags = world.flags(workdir, **{'train.num_steps': 10**6, 'train.checkpoint_every': 10**6})
  for signum, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
    started, log = (
      warm.start('cfg_jax.train', *flags, logs=trial / 'logs'),
      workdir / 'metrics.jsonl',
    )
    lines = len(log.read_bytes().splitlines()) if log.exists() else 0
    while started.running() and not (
      log.exists() and len(log.read_bytes().splitlines()) >= lines + 1
    ):
      time.sleep(0.01)
    time.sleep(dice.uniform(0, 0.5))
    begin = time.monotonic()
    started.kill(signum)
    ended = started.wait()
    seconds = time.monotonic() - begin
    step = ended.out.rpartition('step ')[2].partition(' ')[0]
    shown = warm.run(intact(workdir), logs=trial / 'logs2')
    result = {'kind': signum.name, 'seconds': seconds}
    if ended.code != code or shown.out.strip() != step or 'Traceback' in ended.err:
      result['lost'] = f'code {ended.code}, {ended.out[-200:]}{ended.err[-200:]}, {shown.out}'
    yield result
  shutil.rmtree(trial, ignore_errors=True)
  run, _ = world.copy(trial)
  shutil.rmtree(run / 'samples')
  command = world.commands(run)['generate']
  started = warm.start(*command, '--num_samples', '4000', logs=trial / 'logs')
  while started.running() and not list(run.glob('samples/*/*/*.npz')):
    time.sleep(0.01)
  started.kill(signal.SIGINT)
  ended = started.wait()
  again = warm.run(*command, logs=trial / 'logs2')
  result = {'kind': 'SIGINT, generate'}
  if ended.code != 130 or len(ended.err.splitlines()) > 2 or again.code:
    result['lost'] = f'code {ended.code}, {ended.err[-300:]}, {again.err[-200:]}'
  yield result


def two_at_once(world: World, trial: Path, dice: random.Random) -> Iterator[dict]:
  """Two of a kind on one work directory: trainers refuse, all others both end well."""
  del dice
  shutil.rmtree(trial, ignore_errors=True)
  workdir, data = trial / 'run', trial / 'data'
  commands = world.commands(workdir, data)
  for name in ('digits', *commands):
    command = [digest_of('digits', data)] if name == 'digits' else commands[name]
    pair = [warm.start(*command, logs=trial / f'logs{i}') for i in range(2)]
    ended = [p.wait() for p in pair]
    codes, err = sorted(e.code for e in ended), ''.join(e.err for e in ended)
    told = 'is being trained by another' in err if name == 'train' else True
    wanted = [0, 2] if name == 'train' else [0, 0]
    result = {'kind': f'two: {name}'}
    if codes != wanted or 'Traceback' in err or not told:
      result['lost'] = f'codes {codes}: {err[-400:]}'
    yield result
  if lost := differences(results(workdir), results(world.whole)):
    yield {'kind': 'two at once', 'lost': lost}
