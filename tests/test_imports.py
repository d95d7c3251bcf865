"""The import rule, read from the source: one way along the arrow; equations import JAX alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'cfg_jax'
# What each folder may import, beside itself. A `__main__` composes, and may import any.
ARROW = ('core', 'equations', 'data', 'nets', 'methods', 'train', 'generate', 'evaluate', 'report')
ARROW += ('papers', 'plan', 'follow', 'sweep')


def imports(source: str, package: str = 'cfg_jax') -> set[str]:
  """Full names of all that a module of `package` imports, at its top or inside a function.

  `from a import b` counts as a and a.b, since b may be a module.
  """
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      module = node.module or ''
      if node.level:
        parents = package.split('.')[: len(package.split('.')) - node.level + 1]
        module = '.'.join(parents + [module] * bool(module))
      names |= {module} | {f'{module}.{alias.name}' for alias in node.names}
  return names


def imports_of(path: Path) -> set[str]:
  return imports(path.read_text(), '.'.join(path.parent.relative_to(PACKAGE.parent).parts))


def is_or_is_in(name: str, module: str) -> bool:
  return name == module or name.startswith(f'{module}.')


def test_imports_are_found_however_they_are_written():
  for source, name in (
    ('import flax.nnx as nnx', 'flax.nnx'),
    ('from cfg_jax import data, train', 'cfg_jax.train'),
    ('from cfg_jax.train import train_step', 'cfg_jax.train'),
    ('def f():\n  from . import train', 'cfg_jax.train'),
    ('from .train import train_step', 'cfg_jax.train'),
  ):
    assert name in imports(source)
  assert 'cfg_jax.train' in imports('from .. import train', 'cfg_jax.evaluation')
  assert is_or_is_in('cfg_jax.train.f', 'cfg_jax.train')
  assert not is_or_is_in('cfg_jax.train_state', 'cfg_jax.train')


def stage_of(path: Path) -> str:
  return path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=str)
def test_imports_go_one_way(path):
  if path.name == '__main__.py' or path.parent == PACKAGE:
    return
  stage = stage_of(path)
  later = ARROW[ARROW.index(stage) + 1 :] + (('equations',) if stage == 'core' else ())
  names = imports_of(path)
  offending = [n for n in names for other in later if is_or_is_in(n, f'cfg_jax.{other}')]
  assert not offending, f'{path.relative_to(PACKAGE)} imports {sorted(offending)}'


@pytest.mark.parametrize('path', sorted((PACKAGE / 'equations').rglob('*.py')), ids=str)
def test_equations_import_jax_and_themselves_only(path):
  allowed = {'jax', 'chex', 'numpy', 'cfg_jax', *sys.stdlib_module_names}
  for name in imports_of(path):
    assert name.split('.')[0] in allowed, name
    if name != 'cfg_jax' and is_or_is_in(name, 'cfg_jax'):
      assert is_or_is_in(name, 'cfg_jax.equations'), name


def loaded(*modules: str) -> set[str]:
  """The packages that a process has loaded once it has imported `modules`."""
  script = (
    f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
  )
  command = [sys.executable, '-c', script]
  return set(subprocess.check_output(command, text=True, cwd=PACKAGE.parent).split())


def test_the_equations_load_jax_and_no_framework():
  files = sorted((PACKAGE / 'equations').rglob('*.py'))
  names = ['.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts) for path in files]
  found = loaded(*(name.removesuffix('.__init__') for name in names))
  assert {'jax', 'cfg_jax'} <= found
  assert not found & {'flax', 'optax', 'orbax', 'tensorflow_datasets', 'grain', 'ml_collections'}


@pytest.mark.parametrize(
  ('command', 'without'),
  [
    ('report', {'jax', 'flax', 'orbax', 'tensorflow_datasets', 'submitit', 'tensorboardX'}),
    ('plan', {'tensorflow_datasets', 'sklearn', 'submitit', 'tensorboardX', 'matplotlib'}),
    ('train', {'tensorflow_datasets', 'sklearn', 'submitit', 'tensorboardX', 'matplotlib'}),
    ('generate', {'tensorflow_datasets', 'sklearn', 'submitit', 'tensorboardX', 'matplotlib'}),
    ('evaluate', {'tensorflow_datasets', 'sklearn', 'submitit', 'tensorboardX', 'matplotlib'}),
  ],
)
def test_what_one_stage_needs_the_others_do_not_load(command, without):
  assert not loaded(f'cfg_jax.{command}.__main__') & without
