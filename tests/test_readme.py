"""Every command of the README works as it stands there; the long ones at a tiny size."""

import configparser
import re
import shlex

import jax.numpy as jnp
import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from cfg_jax.core import config as config_lib
from cfg_jax.core import evals
from cfg_jax.data.prepare import __main__ as preparing
from cfg_jax.equations.guidance import rules
from cfg_jax.evaluate import __main__ as evaluating
from cfg_jax.generate import __main__ as generating
from cfg_jax.generate.draw import generate
from cfg_jax.generate.store import sample_sets
from cfg_jax.train import __main__ as training
from cfg_jax.train.loop import train
from tests import raw_datasets
from tests.conftest import ROOT, TINY, run
from tests.test_imports import imports

README = (ROOT / 'README.md').read_text()
COMMANDS = re.findall(r'python -m ((?:cfg_jax|experiments)[^`\n&]*)', README)
SNIPPETS = re.findall(r'```python\n(.*?)```', README, re.S)
SIZE = TINY | {'sample.num_samples': 30, 'sample.guidance.w': (0.0, 1.0)}


def tiny_command(line: str, workdir, data_dir) -> list[str]:
  """A command of the README, in another work directory and, if it trains, at a tiny size."""
  argv = [word.replace('runs/', f'{workdir}/') for word in shlex.split(line)]
  if '--config' in argv and any('vdm' in word for word in argv):
    values = {k: v for k, v in SIZE.items() if k.startswith(('train', 'sample.num'))}
    values |= {'model.channels': 8, 'model.num_blocks': 1, 'model.norm_groups': 4}
    values |= {'data.dir': data_dir, 'sample.sampler.num_steps': 4, 'sample.batch_size': 10}
    argv += [f'--set={name}={value}' for name, value in values.items()]
  elif '--config' in argv:
    values = {k: ','.join(map(str, v)) if isinstance(v, tuple) else v for k, v in SIZE.items()}
    values['data.dir'] = data_dir
    if any('classifier' in word for word in argv):
      values = {k: v for k, v in values.items() if not k.startswith('sample.')}
    argv += [f'--set={name}={value}' for name, value in values.items()]
  return argv


def commands_of(*modules: str) -> list[str]:
  return [line for line in COMMANDS if line.split()[0] in modules]


def test_the_readme_names_what_exists():
  for line in COMMANDS:
    module = ROOT / line.split()[0].replace('.', '/')
    assert module.with_suffix('.py').exists() or (module / '__main__.py').exists(), line
  for path in re.findall(r'\]\((?!http)([^)#]+)\)', README):
    assert (ROOT / path).exists(), path
  rows = re.findall(r'\[`(\w+)\.([\w`, ]+)`\]\(([\w/.]+)\)', README)
  assert len(rows) >= 10
  for module, names, path in rows:
    assert path.endswith(f'/{module}.py')
    source = (ROOT / path).read_text()
    for name in re.findall(r'\w+', names):
      assert re.search(rf'^(def|class) {name}\b', source, re.M), f'{module}.{name}'


def test_what_a_command_needs_more_is_named_beside_it():
  """A package of an extra alone, that the command's file imports: pip install -e '.[extra]'."""
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  extra_of = {
    Requirement(line).name: extra
    for extra, text in setup['options.extras_require'].items()
    for line in text.strip().splitlines()
  }
  for line in setup['options']['install_requires'].strip().splitlines():
    if not line.startswith('#'):
      extra_of.pop(Requirement(line).name, None)
  needing = set()
  for paragraph in README.split('\n\n'):
    for module in re.findall(r'python -m ((?:cfg_jax|experiments)[\w.]*)', paragraph):
      path = ROOT / module.replace('.', '/')
      path = path / '__main__.py' if path.is_dir() else path.with_suffix('.py')
      for package in imports(path.read_text()) & extra_of.keys():
        assert f'.[{extra_of[package]}]' in paragraph, (module, package)
        needing.add(module)
  assert needing == {'experiments.report_screenshots', 'experiments.benchmark_unet'}


def test_one_run_step_by_step(tmp_path, data_dir):
  lines = [line for line in COMMANDS if 'runs/one' in line]
  assert [line.split()[0] for line in lines] == [
    'cfg_jax.train',
    'cfg_jax.generate',
    'cfg_jax.evaluate',
    'cfg_jax.report',
  ]
  for line in lines:
    done = run(*tiny_command(line, tmp_path, data_dir))
    assert done.returncode == 0, (line, done.stderr)
  assert (tmp_path / 'one' / 'report.html').exists()


def test_the_mathematics_in_ones_own_code():
  """The samples have the mean that guidance at w = 1 moves them to: away from the other classes."""
  [snippet] = [text for text in SNIPPETS if 'mixture' in text]
  assert len([line for line in snippet.splitlines() if line]) <= 15
  names = {}
  exec(snippet, names)
  x, means, classes = (np.asarray(names[name]) for name in ('x', 'means', 'classes'))
  assert x.shape == (300, 2) and np.isfinite(x).all()
  for c in range(3):
    along = x[classes == c] @ means[c] / np.linalg.norm(means[c])
    assert along.mean() > np.linalg.norm(means[c])


@pytest.mark.slow
def test_a_rule_of_ones_own(tiny, tmp_path, monkeypatch):
  """At start = λ_min it is classifier-free guidance, at λ_max none, bit for bit; and between it is
  neither. Every value of its knob names a set of its own.
  """
  [snippet] = [text for text in SNIPPETS if 'late' in text]
  assert snippet.count('\n') <= 10
  monkeypatch.setitem(rules.RULES, 'late', None)  # so that it is gone after the test
  exec(snippet, {})
  tiny.train.update(num_steps=40, learning_rate=0.02, checkpoint_every=40)
  train(tiny, tmp_path)
  tiny.sample.num_samples = 16
  tiny.sample.guidance.w = (4.0,)

  def images(config):
    step = generate(config, tmp_path)
    [sample_set] = sample_sets(config.sample, step)
    return sample_set.path, next(sample_set.read(tmp_path, 16))[0]

  _, guided = images(tiny)
  _, unguided = images(config_lib.change(tiny, ['sample.guidance.w=0']))
  late = tiny.copy_and_resolve_references().unlock()
  late.sample.guidance.rule = 'late'
  found = {}
  for start in (-21.0, 0.0, 21.0):
    late.sample.guidance.start = start
    found[start] = images(late)
  assert len({path for path, _ in found.values()}) == 3
  np.testing.assert_array_equal(found[-21.0][1], guided)
  np.testing.assert_array_equal(found[21.0][1], unguided)
  for other in (guided, unguided):
    assert jnp.abs(found[0.0][1].astype(int) - other.astype(int)).max() > 3


def test_pictures_in_seconds(call, tmp_path, monkeypatch):
  """Of ten classes under three w; and ten of one class."""
  monkeypatch.chdir(tmp_path)
  lines = [
    line
    for line in commands_of('cfg_jax.generate')
    if '--pretrained' in line and 'guide' not in line
  ]
  for line in lines:
    done = call(generating, *shlex.split(line)[1:], '--set=sample.sampler.num_steps=4')
    assert done.returncode == 0, (line, done.stderr)
  with Image.open('grid.png') as grid, Image.open('threes.png') as threes:
    assert grid.height >= 10 * 32 and threes.height >= 10 * 32
    assert grid.width >= 3 * 32 and threes.width < 2 * 32 + 100


@pytest.mark.slow
def test_a_quarter_of_an_hour_at_a_tiny_size(call, tmp_path, monkeypatch):
  """From files of a few images, up to their own metrics."""
  monkeypatch.chdir(ROOT)
  source = raw_datasets.write_folder(tmp_path / 'fashion', raw_datasets.idx_files(zipped=True))
  prepare, *rest = [x for x in COMMANDS if 'fashion_mnist' in x or 'runs/clothes' in x]
  modules = [line.split()[0].removeprefix('cfg_jax.') for line in (prepare, *rest)]
  own = ['train', 'evaluate', 'generate', 'evaluate', 'report']
  assert modules == ['data.prepare', 'train', 'generate', *own]
  words = [w.replace('/usr/share/datasets/fashion-mnist', str(source)) for w in prepare.split()[1:]]
  done = call(preparing, *words, '--data_dir', tmp_path, '--workers', 1)
  assert done.returncode == 0, done.stderr
  module_of = {'train': training, 'generate': generating, 'evaluate': evaluating}
  for name, line in zip(modules[1:], rest):
    line = line.replace('clothes.png', str(tmp_path / 'clothes.png'))
    argv = tiny_command(line, tmp_path, tmp_path)
    done = call(module_of[name], *argv[1:]) if name in module_of else run(*argv)
    assert done.returncode == 0, (line, done.stderr)
  assert (tmp_path / 'clothes.png').exists()
  lines = evals.read(tmp_path / 'clothes' / 'evals.jsonl')
  assert [line['settings']['sample']['guidance']['w'] for line in lines] == [0, 1, 3]
  for line in lines:
    assert line['distance'] == 'FD-fashion_mnist' and line['n'] == 500
    assert {'FD-fashion_mnist', 'IS', 'accuracy'} <= line['metrics'].keys()
  page = (tmp_path / 'clothes' / 'report.html').read_text()
  assert 'FD-fashion_mnist' in page and 'accuracy' in page


@pytest.mark.slow
def test_likelihoods_at_a_tiny_size(tmp_path, data_dir):
  lines = [line for line in COMMANDS if 'runs/vdm_digits' in line]
  names = [line.split()[0].rpartition('.')[2] for line in lines]
  assert names == ['sweep', 'evaluate', 'bits_per_dim']
  for line in lines:
    argv = tiny_command(
      line.replace(' bits_per_dim.png', f' {tmp_path}/bits.png'), tmp_path, data_dir
    )
    done = run(*argv, *(['--num_images', '20'] if 'bits_per_dim' in argv[0] else []))
    assert done.returncode == 0, (line, done.stderr)
  assert 'linear schedule: ' in done.stdout and 'w = 1: bits_per_dim ' in done.stdout
  assert (tmp_path / 'bits.png').exists()
  page = (tmp_path / 'vdm_digits' / 'report.html').read_text()
  assert 'bits per dim' in page and 'accuracy' in page


@pytest.mark.slow
def test_the_plan_for_this_machine():
  [line] = [line for line in commands_of('cfg_jax.plan') if 'here' in line]
  small = ('channels=8', 'norm_groups=4', 'head_channels=8')
  done = run(*shlex.split(line), *(f'--set=model.{field}' for field in small))
  assert done.returncode == 0, done.stderr
  assert re.search(r'training: 5,000 steps of .* s +[\d.]+ (s|min|h)$', done.stdout, re.M)


@pytest.mark.slow
def test_the_first_command_at_a_tiny_size(tmp_path, data_dir):
  """And again, when nothing is left to do. `test_sweep` interrupts it."""
  [line] = commands_of('cfg_jax.sweep')[:1]
  reports = []
  for _ in range(2):
    done = run(*tiny_command(line, tmp_path, data_dir))
    assert done.returncode == 0, done.stderr
    reports.append((tmp_path / 'digits' / 'report.csv').read_bytes())
  assert reports[0] == reports[1] and reports[0].count(b'\n') == 1 + 3 * 2 + 3  # Algorithm 2's
