"""What `pip install` puts on a disk."""

import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_data_and_the_configs(tmp_path):
  source = tmp_path / 'source'
  for name in ('cfg_jax', 'configs', 'experiments', 'tests'):
    shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', tmp_path, source]
  subprocess.run(command, check=True)
  [wheel] = tmp_path.glob('*.whl')
  names = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
  wanted = {
    path.relative_to(source).as_posix()
    for folder in ('cfg_jax', 'configs')
    for path in (source / folder).rglob('*')
    if path.is_file()
  }
  assert names == wanted
