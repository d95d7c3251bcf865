"""What several tests share: a tiny config, and the commands as a user runs them."""

import gc
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import pytest
from absl import flags

from cfg_jax.core import command as commands
from cfg_jax.core import config as config_lib
from cfg_jax.data.prepare import __main__ as prepare
from cfg_jax.data.prepare import imagenet, sources
from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate.extractors.digits import DigitsExtractor
from cfg_jax.methods import drawing  # noqa: F401 (so that a solver brings its knobs)

ROOT = Path(__file__).parents[1]
# Half the time of a test is compilation: XLA's quickest, and each program once for all that inherit
# the environment, pytest-xdist's workers and the commands we start.
os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0 ' + os.environ.get('XLA_FLAGS', '')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  CACHE = tempfile.TemporaryDirectory()  # gone when pytest ends
  os.environ['JAX_COMPILATION_CACHE_DIR'] = CACHE.name
jax.config.update('jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR'])
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
gc.set_threshold(100_000)  # programs stay: looking for garbage among them took a tenth of the time
SYNSETS = ['n01440764', 'n01443537', 'n02105855', 'n15075141']  # of imagenet_of_four
TINY = {
  'model.channels': 8,
  'model.head_channels': 8,
  'model.norm_groups': 4,
  'train.batch_size': 16,
  'train.num_steps': 12,
  'train.log_every': 2,
  'train.checkpoint_every': 4,
  'train.warmup_steps': 4,
  'sample.sampler.name': 'ddpm',
  'sample.sampler.grid': 'paper',
  'sample.sampler.num_steps': 4,
  'sample.num_samples': 20,
  'sample.batch_size': 8,
  'sample.guidance.w': (0.0, 1.0),
}


def load_config(name: str, **changes) -> ml_collections.ConfigDict:
  """configs/<name>.py with fields changed by their dotted names, locked as the commands lock it."""
  spec = importlib.util.spec_from_file_location(name, ROOT / 'configs' / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  for field, value in changes.items():
    config_lib.assign(config, field, value)
  return config.lock()


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory) -> Path:
  """One data directory for all tests of a session."""
  return tmp_path_factory.mktemp('data')


@pytest.fixture
def imagenet_of_four(monkeypatch) -> None:
  """ImageNet with 4 classes, 3 training images and 2 validation images each; a shard per file."""
  monkeypatch.setattr(imagenet, 'class_names', lambda: SYNSETS)
  monkeypatch.setattr(imagenet, 'validation_names', lambda: [SYNSETS[i] for i in (2, 0, 3, 1) * 2])
  monkeypatch.setattr(imagenet, 'NUM_IMAGES', {'train': 12, 'validation': 8})
  monkeypatch.setattr(sources, 'SHARD_BYTES', 1)


@pytest.fixture
def tiny(data_dir) -> ml_collections.ConfigDict:
  """The digits' config at a size that compiles in seconds."""
  return load_config('digits', **TINY, **{'data.dir': str(data_dir)})


def command(*argv: str, **env: str) -> subprocess.Popen:
  """Starts `python -m argv…` from the root of the repository, output piped as text."""
  return subprocess.Popen(
    [sys.executable, '-m', *argv],
    cwd=ROOT,
    env=os.environ | env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def run(*argv: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
  """Runs a command to its end, within so many seconds."""
  process = command(*argv, **env)
  out, err = process.communicate(timeout=timeout)
  return subprocess.CompletedProcess(argv, process.returncode, out, err)


@pytest.fixture
def interrupted() -> type[DigitsExtractor]:
  """A digits extractor that counts images in `seen`; past `most` of them, Ctrl-C is pressed."""

  class Interrupted(DigitsExtractor):
    seen, most = 0, math.inf

    def __call__(self, images):
      Interrupted.seen += len(images)
      if Interrupted.seen > Interrupted.most:
        raise KeyboardInterrupt
      return super().__call__(images)

  return Interrupted


WITH_WORDS = (prepare, evaluate)  # commands that take more than flags


@pytest.fixture
def call(monkeypatch, capsys) -> Callable[..., subprocess.CompletedProcess]:
  """`call(module, *argv)` is `run` of a command without a process: a second instead of ten."""
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', str(jax.device_count()))  # too late to change
  defined = {}  # the flags of the module that was called last

  def forget():
    flags.FLAGS.unparse_flags()
    for name in set().union(*defined.values()):
      delattr(flags.FLAGS, name)
    defined.clear()

  def called(module, *argv) -> subprocess.CompletedProcess:
    if module not in defined:
      forget()
      before = set(flags.FLAGS)
      module.define_flags()
      defined[module] = set(flags.FLAGS) - before
    flags.FLAGS.unparse_flags()
    monkeypatch.setattr(sys, 'argv', [module.__name__, *map(str, argv)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
      commands.run(module.main, words=module in WITH_WORDS)
    return subprocess.CompletedProcess(argv, end.value.code or 0, *capsys.readouterr())

  yield called
  forget()


def tiny_flags(workdir: Path, data_dir: Path, **changes) -> list[str]:
  """The flags that give a command the tiny config."""
  fields = TINY | {'data.dir': data_dir} | changes
  values = {k: ','.join(map(str, v)) if isinstance(v, tuple) else v for k, v in fields.items()}
  overrides = [f'--config.{name}={value}' for name, value in values.items()]
  return ['--config', 'configs/digits.py', '--workdir', str(workdir), *overrides]
