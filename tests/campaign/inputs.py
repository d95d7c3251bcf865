"""Carries out the bad inputs: each ends in one line that names it, and writes nothing."""

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.campaign import bad_configs, bad_inputs, warm
from tests.campaign.world import World

MODULES = {'prepare': 'cfg_jax.data.prepare', 'figure2': 'experiments.figure2_gaussians'}


class Case(NamedTuple):
  """One bad input: command and arguments, what its line names, and what a config file holds."""

  argv: tuple[str, ...]
  names: str
  config: str | bytes | None = None


def cases() -> list[Case]:
  """All of them, in an order that is always the same."""
  train = ('train', '--config', 'configs/digits.py', '--workdir', 'OUT')
  found = [
    Case((*train, f'--set={field}={value}'), field)
    for field, values in bad_configs.FIELDS.items()
    for value in values.split(' ')
  ]
  found += [Case((*train, *argv), names) for argv, names in bad_configs.TRAIN]
  mine = ('train', '--config', 'DATA/bad.py', '--workdir', 'OUT')
  found += [Case(mine, names, text) for text, names in bad_configs.CONFIGS]
  digits = 'from configs import digits\n\n\ndef get_config():\n  config = digits.get_config()\n'
  found += [
    Case(mine, names, f'{digits}  {change}\n  return config\n')
    for change, names in bad_configs.CHANGES
  ]
  return found + [Case(tuple(argv), names) for argv, names in bad_inputs.COMMANDS]


def make_files(folder: Path) -> None:
  """DATA: files and folders of every wrong kind, beside right ones."""
  shutil.rmtree(folder, ignore_errors=True)
  draw = np.random.default_rng(0)
  for name in ('empty', 'mixed', 'png/a', 'grey_and_alpha', 'idx', 'one_class/a', 'no_pictures/a'):
    (folder / name).mkdir(parents=True)
  (folder / 'no_pictures' / 'b').mkdir()
  for name in ('texts/a', 'texts/b'):
    (folder / name).mkdir(parents=True)
    (folder / name / 'no.png').write_text('no picture')
  (folder / 'file').write_text('a file')
  (folder / 'nowhere').symlink_to(folder / 'missing')
  (folder / 'loop').symlink_to(folder / 'loop')
  digits = draw.integers(0, 256, (40, 8, 8, 1), np.uint8)
  arrays = {
    'images': digits,
    'floats': digits / 255,
    'flat': digits[..., 0],
    'colour': np.repeat(digits, 3, -1),
    'large': np.repeat(np.repeat(digits, 2, 1), 2, 2),
    'few': digits[:4],
    'object': np.array([Path('x')], object),
    'dark': digits // 255,
  }
  for name, array in arrays.items():
    np.savez(folder / f'{name}.npz', array)
  np.savez(folder / 'no_images.npz', other=digits)
  (folder / 'cut.npz').write_bytes((folder / 'images.npz').read_bytes()[:900])
  for name in ('text.npz', 'text.pkl'):
    (folder / name).write_text('no archive')
  np.savez(folder / 'mixed' / 'a.npz', digits)
  np.savez(folder / 'mixed' / 'b.npz', digits[:, :4])
  (folder / 'png' / 'a' / 'x.png').write_text('no picture')
  for mode in ('L', 'LA'):
    Image.new(mode, (8, 8), 200).save(folder / 'grey_and_alpha' / f'{mode}.png')
  eye = np.eye(64)
  np.savez(folder / 'nan_mu.npz', mu=np.full(64, np.nan), sigma=eye)
  np.savez(folder / 'five.npz', mu=np.zeros(5), sigma=np.eye(5))
  np.savez(folder / 'mu_alone.npz', mu=np.zeros(64))
  np.savez(folder / 'skew.npz', mu=np.zeros(64), sigma=np.eye(63))
  (folder / 'none.pkl.txt').write_bytes(pickle.dumps(0))
  for name in ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'):
    (folder / 'idx' / name).write_bytes(b'\0\0\x08\x03 not so many')


def listing(folder: Path) -> dict[str, int]:
  """What lies below a folder, and how large it is."""
  return {str(p): p.lstat().st_size for p in folder.rglob('*') if not p.name.endswith('.lock')}


def bad_input(world: World, trial: Path, number: int) -> Iterator[dict]:
  """Gives the case of that number to its command."""
  case, data, out = cases()[number], trial / 'inputs', trial / 'out'
  if not (data / 'images.npz').exists() or number % 50 == 0:
    make_files(data)
  if not (trial / 'run').exists():
    shutil.copytree(world.whole, trial / 'run')
  shutil.rmtree(out, ignore_errors=True)
  if case.config is not None:
    text = case.config if isinstance(case.config, bytes) else case.config.encode()
    (data / 'bad.py').write_bytes(text)
  places = {'DATA': str(data), 'RUN': str(trial / 'run'), 'OUT': str(out)}
  name, *argv = case.argv
  names = case.names
  for word, path in places.items():
    argv = [a.replace(word, path) for a in argv]
    names = names.replace(word, path)
  if name in ('train', 'sweep') and not any('data.dir' in a for a in argv):
    argv[:0] = [f'--config.data.dir={world.data}'] if '--config' in argv else []
  before = listing(trial / 'run') | listing(out)
  command = MODULES.get(name, f'cfg_jax.{name}')
  ended = warm.run(command, *argv, logs=trial / 'logs', timeout=60, PATH=str(out))
  result = {'kind': name, 'argv': ' '.join(case.argv)[:120], 'names': case.names}
  text, lines = ended.err, ended.err.strip().splitlines()
  if case.config is not None:
    result['argv'] = str(case.config)[-60:]
  if ended.code not in (1, 2):
    result['told_not'] = f'code {ended.code}: {ended.out[-200:]} {text[-300:]}'
  elif 'Traceback' in text or 'Error:' in text and 'bad.py' not in text:
    result['traceback'] = text[-500:]
  elif len(lines) > 4:  # a line for each problem
    result['told_not'] = f'{len(lines)} lines: {text[-300:]}'
  elif names not in text:
    result['told_not'] = text[-300:]
  elif listing(trial / 'run') | listing(out) != before:
    result['told_not'] = 'something was written'
  else:
    result['outcome'] = 'told'
  yield result


def environments(world: World, trial: Path) -> Iterator[dict]:
  """What the system may refuse: rights, a home, memory, a number that is not finite."""
  shutil.rmtree(trial, ignore_errors=True)
  trial.mkdir(parents=True)
  closed = trial / 'closed'
  closed.mkdir(mode=0o755)
  world.copy(trial / 'copy')
  run, data = trial / 'copy' / 'run', trial / 'copy' / 'data'

  def as_nobody() -> None:
    os.setgid(65534)
    os.setuid(65534)

  def homeless() -> None:
    os.setgid(54321)
    os.setuid(54321)

  def not_a_number() -> None:
    from cfg_jax.equations import objectives

    losses = objectives.losses
    objectives.losses = lambda *args: losses(*args) * float('nan')

  for folder in (trial, *trial.parents[:3]):
    folder.chmod(folder.stat().st_mode | 0o055)
  train = world.commands(closed / 'run', data)
  changed = ('--set', 'sample.num_samples=44')
  done = world.commands(run, data)
  cases = {
    'no right, train': (train['train'], as_nobody, {}, 1, str(closed)),
    'no right, resume': ([*done['train'], '--set', 'train.num_steps=45'], as_nobody, {}, 1, 'run'),
    'no right, generate': ([*done['generate'], *changed], as_nobody, {}, 1, str(run)),
    'no right, evaluate': ([*done['evaluate'], '--num_samples=30'], as_nobody, {}, 1, str(run)),
    'no right, report': (done['report'], as_nobody, {}, 1, str(run)),
    'no home': (
      ['cfg_jax.plan', '--config', 'configs/digits.py', '--set', 'data.dir=~/x'],
      homeless,
      {'HOME': None},
      2,
      'HOME',
    ),
    'NaN': (world.commands(trial / 'nan', data)['train'], not_a_number, {}, 2, 'at step'),
  }
  if os.getuid() != 0:
    cases = {'NaN': cases['NaN']}
    print('not root: rights and homes of others are not tried')
  for name, (command, before, env, code, says) in cases.items():
    ended = warm.run(*command, logs=trial / 'logs', before=before, **env)
    result = {'kind': name, 'argv': ' '.join(map(str, command))[:120]}
    text = ended.err
    if 'Traceback' in text:
      result['traceback'] = text[-500:]
    elif ended.code != code or says not in text or len(text.strip().splitlines()) > 2:
      result['told_not'] = f'code {ended.code}: {ended.out[-200:]} {text[-400:]}'
    else:
      result['outcome'] = 'told'
    yield result
