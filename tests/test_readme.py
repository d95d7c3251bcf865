"""Every command of the README works as it stands there; the long ones at a tiny size."""

import re
import shlex

import pytest

from tests.conftest import ROOT, TINY, run

README = (ROOT / 'README.md').read_text()
COMMANDS = re.findall(r'python -m ((?:cfg_jax|experiments)[^`\n&]*)', README)
SIZE = TINY | {'sample.num_samples': 30, 'sample.w': (0.0, 1.0)}


def tiny_command(line: str, workdir, data_dir) -> list[str]:
  """A command of the README, in another work directory and, if it trains, at a tiny size."""
  argv = [word.replace('runs/', f'{workdir}/') for word in shlex.split(line)]
  if '--config' in argv:
    values = {k: ','.join(map(str, v)) if isinstance(v, tuple) else v for k, v in SIZE.items()}
    values['data.dir'] = data_dir
    argv += [f'--config.{name}={value}' for name, value in values.items()]
  return argv


def commands_of(*modules: str) -> list[str]:
  return [line for line in COMMANDS if line.split()[0] in modules]


def test_the_readme_names_what_exists():
  for line in COMMANDS:
    module = line.split()[0].replace('.', '/')
    assert (ROOT / f'{module}.py').exists(), line
  for path in re.findall(r'\]\((?!http)([^)#]+)\)', README):
    assert (ROOT / path).exists(), path
  for module, names in re.findall(r'\[`(\w+)\.([\w`, ]+)`\]', README):
    source = (ROOT / 'cfg_jax' / f'{module}.py').read_text()
    for name in re.findall(r'\w+', names):
      assert re.search(rf'^(def|class) {name}\b', source, re.M), f'{module}.{name}'


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


@pytest.mark.slow
def test_the_first_command_at_a_tiny_size(tmp_path, data_dir):
  """And again, when nothing is left to do. `test_sweep` interrupts it."""
  [line] = commands_of('cfg_jax.sweep')[:1]
  reports = []
  for _ in range(2):
    done = run(*tiny_command(line, tmp_path, data_dir))
    assert done.returncode == 0, done.stderr
    reports.append((tmp_path / 'digits' / 'report.csv').read_bytes())
  assert reports[0] == reports[1] and reports[0].count(b'\n') == 1 + 3 * 2
