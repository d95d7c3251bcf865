"""A small run, and what it leaves: the campaign's measure of what is lost or silently wrong."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from tests import conftest
from tests.campaign import warm
from tests.conftest import TINY, tiny_flags

SIZE = TINY | {
  'train.num_steps': 40,
  'train.checkpoint_every': 5,
  'train.log_every': 5,
  'sample.num_samples': 40,
  'sample.batch_size': 4,
  'sample.guidance.w': (0.0, 1.0, 4.0),
}
STEPS = SIZE['train.num_steps']


class World:
  """Where the campaign happens: DIR/data, DIR/undisturbed/run, and a folder for each trial."""

  def __init__(self, folder: Path):
    """folder: DIR, absolute."""
    self.folder, self.data = folder, folder / 'data'
    self.whole = folder / 'undisturbed' / 'run'

  def flags(self, workdir: Path, data: Path | None = None, **changes) -> list[str]:
    """Of `train` and `sweep`."""
    return tiny_flags(workdir, data or self.data, **SIZE | changes)

  def commands(self, workdir: Path, data: Path | None = None) -> dict[str, list]:
    """The four that make a run, each with its arguments."""
    of_run = ['--workdir', workdir, '--set', f'data.dir={data or self.data}']
    return {
      'train': ['cfg_jax.train', *self.flags(workdir, data)],
      'generate': ['cfg_jax.generate', *of_run],
      'evaluate': ['cfg_jax.evaluate', *of_run],
      'report': ['cfg_jax.report', '--workdir', workdir],
    }

  def sweep(self, workdir: Path) -> list:
    """A sweep of two models."""
    flags = self.flags(workdir, **{'train.num_steps': 20, 'sample.num_samples': 20})
    return ['cfg_jax.sweep', *flags, '--grid', 'method.p_uncond=0.1,0.5']

  def build(self) -> None:
    """The undisturbed run, and a sweep, once."""
    if (self.folder / 'undisturbed' / 'done').exists():
      return
    shutil.rmtree(self.folder / 'undisturbed', ignore_errors=True)
    sweep = {'sweep': self.sweep(self.folder / 'undisturbed' / 'sweep')}
    for name, command in (self.commands(self.whole) | sweep).items():
      ended = warm.run(*command, logs=self.folder / 'logs' / name)
      assert ended.code == 0, (name, ended.err)
      print(f'undisturbed {name}: {ended.seconds:.1f} s', flush=True)
    (self.folder / 'undisturbed' / 'done').touch()

  def copy(self, trial: Path) -> tuple[Path, Path]:
    """(a copy of the undisturbed run, called `run` too; a copy of the data), for a trial."""
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir(parents=True)
    shutil.copytree(self.whole, trial / 'run')
    shutil.copytree(self.data, trial / 'data')
    return trial / 'run', trial / 'data'


def results(workdir: Path, step: int = STEPS) -> dict[str, object]:
  """What a run came to: digests of arrays and images, lines of evaluation, losses, report."""
  workdir = Path(workdir)
  record = json.loads((workdir / f'checkpoints/{step}/record/metadata').read_text())
  found = {'arrays': record['digests'], 'extra': record['extra']}
  for folder in sorted(workdir.glob('samples/*/w=*')):
    found[f'{folder.parent.name}/{folder.name}'] = _of_set(folder)
  lines = (workdir / 'evals.jsonl').read_text().splitlines()
  found['evals'] = sorted(lines)
  log = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  found['losses'] = {line['step']: line['loss'] for line in log if line['step'] <= step}
  data = json.loads((workdir / 'config.json').read_text())['config']['data']['dir']
  for name in ('report.csv', 'report.html'):
    text = (workdir / name).read_text().replace(data, 'DATA')  # which may lie anywhere
    found[name] = hashlib.sha256(text.encode()).hexdigest()
  return found


def _of_set(folder: Path) -> str:
  """The digest of a set's images and labels, in whatever files they lie."""
  images = {}
  for file in sorted(folder.glob('*-*.npz')):
    with np.load(file) as arrays:
      for i, label, image in zip(arrays['indices'], arrays['labels'], arrays['images']):
        images[int(i)] = f'{i} {label} '.encode() + image.tobytes()
  return hashlib.sha256(b''.join(images[i] for i in sorted(images))).hexdigest()


def differences(found: dict, expected: dict) -> list[str]:
  """The names of what is not as expected."""
  return [k for k in sorted(expected.keys() | found.keys()) if found.get(k) != expected.get(k)]


def intact(workdir: Path) -> Callable[[], None]:
  """A function for `warm.run` that prints the newest intact checkpoint of a run."""

  def show() -> None:
    from cfg_jax.core.checkpoint import Checkpoints

    print(Checkpoints(workdir).newest_intact())

  return show


def is_told(err: str, *names: str, lines: int = 6) -> bool:
  """Whether what a command wrote names one of the files, in a few lines and without a traceback."""
  return (
    'Traceback' not in err and len(err.splitlines()) <= lines and any(name in err for name in names)
  )


def environment(cache: Path) -> None:
  """XLA's quickest, one device, and programs compiled once for the whole campaign."""
  if hasattr(conftest, 'CACHE'):
    conftest.CACHE.cleanup()  # else each fork would at its end
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(cache)
  jax.config.update('jax_compilation_cache_dir', str(cache))
  os.environ['JAX_NUM_CPU_DEVICES'] = '1'
