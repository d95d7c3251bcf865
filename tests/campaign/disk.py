"""A full disk: one line, exit code 1, and once there is room all is as if undisturbed."""

import contextlib
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.campaign import warm
from tests.campaign.world import World, differences, results


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
  """A tmpfs at folder; yields False where mounting is not permitted."""
  folder.mkdir(parents=True, exist_ok=True)
  mounted = subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', 'size=100m', 'tmpfs', str(folder)], capture_output=True
  )
  try:
    yield mounted.returncode == 0
  finally:
    if mounted.returncode == 0:
      subprocess.run(['umount', str(folder)])


def leave(folder: Path, kilobytes: int) -> None:
  """Fills the disk at folder but for so many kilobytes."""
  filler = folder / 'filler'
  filler.unlink(missing_ok=True)
  free = shutil.disk_usage(folder).free - 1024 * kilobytes
  with filler.open('wb') as file:
    file.write(bytes(max(0, free)))


def full(world: World, trial: Path, dice: random.Random) -> Iterator[dict]:
  """A run on a disk that fills up at random during each command, and is freed for the next try."""
  shutil.rmtree(trial, ignore_errors=True)
  with small_disk(trial / 'disk') as mounted:
    if not mounted:
      print('mounting is not permitted: files larger than a limit stand for a full disk')
    workdir, data = trial / 'disk' / 'run', trial / 'disk' / 'data'
    shutil.copytree(world.data, data)
    shutil.rmtree(data / 'references', ignore_errors=True)
    for name, command in world.commands(workdir, data).items():
      for room in (0, dice.randrange(4, 40), dice.randrange(40, 400)):
        limit = None
        if mounted:
          leave(trial / 'disk', room)
        else:

          def limit(size=room * 256):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        ended = warm.run(*command, logs=trial / 'logs', before=limit, TMPDIR=str(trial))
        (trial / 'disk' / 'filler').unlink(missing_ok=True)
        result = {'kind': f'full: {name}', 'room': room, 'code': ended.code}
        lines = ended.err.strip().splitlines()
        if 'Traceback' in ended.err or len(lines) > 3:
          result['traceback'] = f'{len(lines)} lines: {ended.err[-600:]}'
        elif ended.code not in (0, 1):
          result['told_not'] = f'code {ended.code}: {ended.err[-300:]}'
        else:
          result['outcome'] = 'told' if ended.code else 'had room'
        yield result
      ended = warm.run(*command, logs=trial / 'logs')
      if ended.code:
        yield {'kind': f'full: {name}', 'lost': ended.err[-400:]}
        return
    if lost := differences(results(workdir), results(world.whole)):
      yield {'kind': 'full', 'lost': lost}
