"""The import rule, read from the source: the paper's four modules stay free of any framework."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'cfg_jax'
MATHEMATICS = ('diffusion', 'guidance', 'objective', 'sampling')


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


@pytest.mark.parametrize('module', MATHEMATICS)
def test_mathematics_imports_jax_and_itself_only(module):
  allowed = {'jax', 'chex', 'numpy', *sys.stdlib_module_names}
  own = {f'cfg_jax.{name}' for name in MATHEMATICS}
  names = imports_of(PACKAGE / f'{module}.py')
  assert any(is_or_is_in(name, 'jax') for name in names)
  for name in names - {'cfg_jax'}:
    assert name.split('.')[0] in allowed or any(is_or_is_in(name, m) for m in own), name


def test_nothing_imports_train():
  modules = sorted(PACKAGE.rglob('*.py'))
  assert len(modules) > 10
  for path in modules:
    offending = [name for name in imports_of(path) if is_or_is_in(name, 'cfg_jax.train')]
    assert not offending, f'{path.name} imports {offending}'


def test_there_is_no_utils():
  assert not list(PACKAGE.rglob('util*.py'))
