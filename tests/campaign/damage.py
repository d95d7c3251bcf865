"""Flips and cuts in every kind of file: it is named, or what comes out is as if undisturbed."""

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.campaign import warm
from tests.campaign.kills import many_shards, pictures
from tests.campaign.world import World, differences, is_told, results


def flip(data: bytes, dice: random.Random) -> bytes:
  """One bit."""
  i, changed = dice.randrange(len(data)), bytearray(data)
  changed[i] ^= 1 << dice.randrange(8)
  return bytes(changed)


def digit(data: bytes, dice: random.Random) -> bytes:
  """One digit becomes another, which reads as plausibly. A bit, where there is no digit."""
  places = [m.start() for m in re.finditer(rb'\d', data)]
  if not places:
    return flip(data, dice)
  i, changed = dice.choice(places), bytearray(data)
  changed[i] = dice.choice([d for d in b'0123456789' if d != data[i]])
  return bytes(changed)


def cut(data: bytes, dice: random.Random) -> bytes:
  """Only a part, of random length."""
  return data[: dice.randrange(len(data))]


def page(data: bytes, dice: random.Random) -> bytes:
  """Zeros over 512 bytes."""
  i = dice.randrange(max(1, len(data) - 512))
  return data[:i] + bytes(min(512, len(data) - i)) + data[i + 512 :]


def empty(data: bytes, dice: random.Random) -> bytes:
  """Nothing is left."""
  return b''


WAYS = (flip, flip, flip, digit, cut, page, empty)


class Kind(NamedTuple):
  """A kind of file: where it lies (a glob below the trial), what then is done, how often it is hit.

  then: commands of the run, 'remove PATTERN', or a name of `Trial`. gone: whether it may be deleted
  too. expects: 'same', or the step that a resumed training goes to.
  """

  pattern: str
  then: tuple[str, ...]
  times: int
  ways: tuple[Callable, ...] = WAYS


JSON = (flip, flip, digit, digit, digit, cut, page, empty)
AGAIN = ('evaluate', 'report')
FROM_DATA = ('remove run/evals.jsonl', 'remove data/references/*', 'evaluate', 'resume')
KINDS = {
  'checkpoint, arrays': Kind('run/checkpoints/40/arrays/**/d/*', ('resume', 'more'), 10),
  'checkpoint, index': Kind('run/checkpoints/40/arrays/**/[m_]*', ('resume', 'more'), 10),
  'checkpoint, record': Kind('run/checkpoints/40/record/*', ('resume', 'more'), 8, JSON),
  'checkpoint, Orbax': Kind('run/checkpoints/40/_CHECKPOINT_METADATA', ('resume', 'more'), 5, JSON),
  'config.json': Kind('run/config.json', ('more', 'evaluate', 'resume'), 16, JSON),
  'evals.jsonl': Kind('run/evals.jsonl', AGAIN, 16, JSON),
  'metrics.jsonl': Kind('run/metrics.jsonl', ('resume', 'report'), 10, JSON),
  'samples': Kind('run/samples/*/*/*-*.npz', ('generate', 'remove run/evals.jsonl', *AGAIN), 16),
  'identity.json': Kind('run/samples/*/*/identity.json', ('generate', *AGAIN), 3, JSON),
  'grid.png': Kind('run/samples/*/grid.png', ('generate', *AGAIN), 3),
  'data, records': Kind('data/cfg_digits/1.0.0/*array_record*', FROM_DATA, 12),
  'data, JSON': Kind('data/cfg_digits/1.0.0/*.*[nt]', FROM_DATA, 12, JSON),
  'real images': Kind('run/real/*.npz', AGAIN, 6),
  'reference': Kind('data/references/*.npz', ('remove run/evals.jsonl', *AGAIN), 12),
  'TensorBoard': Kind('run/tensorboard/*', ('resume', 'report'), 3),
  'locks': Kind('run/*.lock', ('evaluate', 'resume'), 3),
  'report': Kind('run/report.*', ('report',), 3),
  'programs': Kind('cache/*-cache', ('cached',), 8),
  'sweep.json': Kind('sweep/sweep.json', ('status',), 8, JSON),
  'jobs.jsonl': Kind('sweep/jobs/jobs.jsonl', ('sweep',), 3, JSON),
  "a sweep's evals.jsonl": Kind('sweep/*/evals.jsonl', ('sweep',), 3, JSON),
  "a sweep's config.json": Kind('sweep/*/config.json', ('sweep',), 3, JSON),
  'journal of preparing': Kind('own/own/1.0.0/*.jsonl', ('prepare',), 4, JSON),
  'images from elsewhere': Kind('images.npz', ('images',), 5),
  'reference from elsewhere': Kind('reference.npz', ('images',), 6),
}


class Trial:
  """The commands that follow on a damage; each returns how it ended."""

  def __init__(self, world: World, folder: Path):
    """folder: of the trial."""
    self.world, self.folder = world, folder
    self.run, self.data = folder / 'run', folder / 'data'

  def __call__(self, name: str) -> warm.Ended:
    """One of `Kind.then`, but for 'remove'."""
    logs, commands = self.folder / 'logs', self.world.commands(self.run, self.data)
    sweep = self.world.sweep(self.folder / 'sweep')
    more = {
      'resume': ['cfg_jax.train', *self.world.flags(self.run, self.data), '--set', RESUMED],
      'more': [*commands['generate'], '--w', '1', '--num_samples', '44', '--step', '40'],
      'cached': [*commands['generate'], '--w', '2', '--num_samples', '8'],
      'status': ['cfg_jax.sweep', '--workdir', self.folder / 'sweep', '--status'],
      'sweep': sweep,
      'images': [
        *('cfg_jax.evaluate', 'samples', self.folder / 'images.npz', '--extractor', 'digits'),
        *('--reference', self.folder / 'reference.npz'),
      ],
      'prepare': [
        *('cfg_jax.data.prepare', 'own', '--source', self.folder / 'pictures'),
        *('--data_dir', self.folder / 'own', '--size', 16, '--workers', 1),
      ],
    }
    before = many_shards if name == 'prepare' else None
    env = {'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'cache')} if name == 'cached' else {}
    return warm.run(*(commands | more)[name], logs=logs, before=before, **env)


RESUMED = 'train.num_steps=45'


def prepare_trial(world: World, kind: Kind, trial: Path) -> None:
  """Copies into the trial's folder what its commands read."""
  world.copy(trial)
  if kind.pattern.startswith('cache/'):
    shutil.copytree(os.environ['JAX_COMPILATION_CACHE_DIR'], trial / 'cache')
  if kind.pattern.startswith('sweep/'):
    shutil.copytree(world.folder / 'undisturbed' / 'sweep', trial / 'sweep')
  if 'images' in kind.then:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    np.savez(trial / 'images.npz', images)
    [reference] = (trial / 'data/references').glob('*.npz')
    shutil.copy(reference, trial / 'reference.npz')
  if 'prepare' in kind.then:  # as it lies there once a shard and what comes last are missing
    pictures(trial / 'pictures')
    Trial(world, trial)('prepare')
    for path in sorted((trial / 'own/own/1.0.0').iterdir())[40:]:
      if not path.name.endswith('.jsonl'):
        path.unlink()
    for name in ('dataset_info.json', 'digests.json', 'features.json', 'label.labels.txt'):
      (trial / 'own/own/1.0.0' / name).unlink(missing_ok=True)


def carry_out(world: World, kind: Kind, trial: Path) -> tuple[list[warm.Ended], dict]:
  """What comes after a damage, up to the first command that fails; and what it comes to."""
  ended, call = [], Trial(world, trial)
  for step in kind.then:
    if step.startswith('remove '):
      for path in trial.glob(step.removeprefix('remove ')):
        path.unlink()
      continue
    ended.append(call(step))
    if ended[-1].code:
      return ended, {}
  found = {}
  if kind.pattern.startswith(('run/', 'data/')):
    newest = max(int(p.name) for p in (trial / 'run/checkpoints').iterdir() if p.name.isdigit())
    found = results(trial / 'run', newest)
    if kind.pattern == 'run/metrics.jsonl':  # a log, which decides nothing and has no digest
      del found['losses']
  found |= {step: e.out for step, e in zip(kind.then, ended) if step in ('images', 'status')}
  if 'cached' in kind.then:
    found |= {
      str(p.relative_to(trial)): _arrays(p) for p in trial.glob('run/samples/*/w=2-*/*.npz')
    }
  if 'sweep' in kind.then:
    found |= {name: (trial / 'sweep' / name).read_text() for name in ('report.csv', 'report.html')}
  if 'prepare' in kind.then:
    from tests.campaign.kills import digest_of

    found['own'] = warm.run(digest_of('own', trial / 'own'), logs=trial / 'logs').out
  return ended, found


def _arrays(path: Path) -> dict:
  with np.load(path) as arrays:
    return {name: arrays[name].tolist() for name in arrays}


def names_of(path: Path, trial: Path) -> list[str]:
  """What a line may call a damaged file: its path, its checkpoint, set or data set."""
  inside = str(path.relative_to(trial))
  names = [str(path), inside]
  for folder in ('checkpoints/40', 'cfg_digits/1.0.0', 'own/own/1.0.0'):
    names += [folder] if folder in inside else []
  if path.suffix == '.npz' and 'samples' in inside:
    names.append(str(path.parent))
  return names


def trials() -> list[tuple[str, int]]:
  """(kind, number) of all, kinds in turn."""
  found = [(name, i) for name, kind in KINDS.items() for i in range(kind.times + 1)]
  return sorted(found, key=lambda item: item[1])


def damage(
  world: World, trial: Path, name: str, number: int, dice: random.Random, expected: dict
) -> Iterator[dict]:
  """Damages a file and carries on. expected: what undamaged ones come to; filled here."""
  kind = KINDS[name]
  key = ' '.join((kind.pattern.partition('/')[0], *kind.then))
  if key not in expected:
    prepare_trial(world, kind, trial)
    ended, expected[key] = carry_out(world, kind, trial)
    assert ended[-1].code == 0, (name, ended[-1].err)
  prepare_trial(world, kind, trial)
  files = sorted(p for p in trial.glob(kind.pattern) if p.is_file() and p.stat().st_size)
  assert files, kind.pattern
  path = dice.choice(files)
  how = 'gone' if number == kind.times else dice.choice(kind.ways).__name__
  if how == 'gone':
    path.unlink()
  else:
    data = path.read_bytes()
    changed = {w.__name__: w for w in kind.ways}[how](data, dice)
    if changed == data:
      changed = flip(data, dice)
    path.unlink()  # what else shares it keeps its own
    path.write_bytes(changed)
  ended, found = carry_out(world, kind, trial)
  said = '\n'.join(e.out + e.err for e in ended)
  names = names_of(path, trial) + ([str(path.parent)] if how == 'gone' else [])
  result = {'kind': name, 'how': how, 'file': str(path.relative_to(trial))}
  told = is_told(ended[-1].err, *names) or any(n in said for n in names)
  if 'Traceback' in said:
    result['traceback'] = said[-600:]
  elif ended[-1].code:
    result |= {'outcome': 'named'} if told else {'unnamed': ended[-1].err[-400:]}
  elif lost := differences(found, expected[key]):
    result |= {'outcome': 'named'} if told else {'silent': lost}
  else:
    result['outcome'] = 'named' if told else 'same'
  yield result
