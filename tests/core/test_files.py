"""Files that appear whole."""

import os

import pytest

from cfg_jax.core import files


@pytest.mark.parametrize('how', ['atomic', 'replace'])
def test_a_file_gets_its_name_once_its_bytes_are_on_the_disk(tmp_path, monkeypatch, how):
  """Else a power cut would leave an empty file under the name of a complete one."""
  path, written, happened = tmp_path / 'whole', tmp_path / 'written', []
  written.write_bytes(b'bytes')
  fsync, rename = os.fsync, os.replace

  def synced(descriptor):
    fsync(descriptor)
    happened.append(('fsync', os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

  def renamed(old, new):
    happened.append(('replace', os.stat(old).st_ino, os.stat(old).st_size))
    rename(old, new)

  monkeypatch.setattr(os, 'fsync', synced)
  monkeypatch.setattr(os, 'replace', renamed)
  if how == 'atomic':
    with files.atomic(path) as file:
      file.write(b'bytes')
  else:
    files.replace(written, path)
  inode = path.stat().st_ino
  assert happened == [('fsync', inode, 5), ('replace', inode, 5)]
  assert path.read_bytes() == b'bytes'
