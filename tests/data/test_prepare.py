"""The prepare command: on folders of one's own, on bad input, killed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cfg_jax.data import registry as datasets
from cfg_jax.data.prepare import __main__ as prepare
from cfg_jax.data.prepare import sources
from tests.raw_datasets import (
  assert_holds,
  content,
  cut_outside,
  idx,
  idx_files,
  jpeg,
  lacking,
  own,
  prepared,
  run,
  unknown,
  write_folder,
)


def test_a_folder_becomes_a_data_set_of_its_name(tmp_path, capsys):
  source = own(tmp_path)
  (source / '.hidden').mkdir()
  (source / 'cats/.DS_Store').write_bytes(b'x')
  assert run('pets', '--source', source, '--size', 16, '--data_dir', tmp_path) == 0
  assert 'left out' not in capsys.readouterr().out
  pets = datasets.get('pets', tmp_path)
  assert (pets.image_shape, pets.num_classes, pets.num_train) == ((16, 16, 3), 2, 6)
  expected = [(prepared(jpeg(i), 16), c) for c in (0, 1) for i in range(3)]
  assert_holds(content('pets', tmp_path), expected)
  names = pets.open(tmp_path, 'train').dataset_info.features['label'].names
  assert names == ['big dogs', 'cats']


def test_what_is_prepared_is_not_overwritten(tmp_path, capsys):
  source = own(tmp_path)
  args = ('pets', '--source', source, '--data_dir', tmp_path, '--size')
  run(*args, 16)
  before = content('pets', tmp_path)
  for size in (16, 32):
    assert run(*args, size) == 2
    assert 'already has train' in capsys.readouterr().err
  assert run(*args, 32, '--split', 'test') == 2
  assert 'holds images of (16, 16, 3)' in capsys.readouterr().err
  (source / 'cats').rename(source / 'lions')
  assert run(*args, 16, '--split', 'test') == 2
  assert "class 'cats' is in only one of train and test" in capsys.readouterr().err
  assert_holds(content('pets', tmp_path), before)


def test_unfinished_shards_of_another_source_are_not_touched(tmp_path, capsys):
  source = own(tmp_path)
  args = ('pets', '--source', source, '--data_dir', tmp_path, '--size')
  run(*args, 16)
  folder = tmp_path / 'pets/1.0.0'
  (folder / 'dataset_info.json').unlink()  # as if killed before the end
  before = {p: p.read_bytes() for p in folder.iterdir()}
  assert run(*args, 32) == 2
  assert 'unfinished shards of another source or size' in capsys.readouterr().err
  assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_a_shard_whose_images_changed_is_done_again_and_no_other(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'SHARD_BYTES', 1)
  source = own(tmp_path)
  args = ('pets', '--source', source, '--data_dir', tmp_path, '--size', 16)
  run(*args)
  folder = tmp_path / 'pets/1.0.0'
  (folder / 'dataset_info.json').unlink()  # as if killed before the end
  before = {p.name: p.stat().st_mtime_ns for p in folder.glob('*.array_record-*')}
  (source / 'cats/2.jpg').write_bytes(jpeg(7))
  assert run(*args) == 0
  after = {p.name: p.stat().st_mtime_ns for p in folder.glob('*.array_record-*')}
  assert [n for n in after if before[n] != after[n]] == ['pets-train.array_record-00005-of-00006']
  np.testing.assert_array_equal(content('pets', tmp_path)[5][0], prepared(jpeg(7), 16))


def test_nothing_is_prepared_before_all_its_metadata_is_there(tmp_path, monkeypatch):
  replace = os.replace

  def fail_at_labels(source, target):
    if target.name == 'label.labels.txt':
      raise OSError('no space left on device')
    replace(source, target)

  monkeypatch.setattr(os, 'replace', fail_at_labels)
  args = ('pets', '--source', own(tmp_path), '--data_dir', tmp_path, '--size', 16)
  assert run(*args) == 2
  with pytest.raises(ValueError, match='not prepared'):
    datasets.get('pets', tmp_path)


def one_class(folder):
  return write_folder(folder, {'cats/0.jpg': jpeg(0)})


def empty_class(folder):
  (own(folder) / 'mice').mkdir()
  return folder / 'photos'


def hopeless_class(folder):
  return write_folder(own(folder), {'mice/notes.txt': b'no image'})


@pytest.mark.parametrize(
  ('make', 'args', 'message'),
  [
    (one_class, ('pets', '--size', 8), 'holds 1 class folders (cats)'),
    (empty_class, ('pets', '--size', 8), 'mice holds no images'),
    (hopeless_class, ('pets', '--size', 8), "class 'mice' has no image that can be decoded"),
    (own, ('pets',), 'give --size'),
    (own, ('my-pets', '--size', 8), "'my-pets' cannot name a data set"),
    (own, ('mnist', '--size', 8), '--size=8 is for data sets of your own'),
    (own, ('mnist',), 'lacks train-images-idx3-ubyte'),
    (own, ('mnist', '--split', 'test'), 'leave --split out'),
    (own, ('imagenet64', '--split', 'test'), '--split=test must be one of train, validation'),
    (own, ('imagenet64',), 'outside imagenet2012'),
    (own, ('cifar10',), 'not a tar'),
    (own, ('digits',), 'needs no preparing'),
  ],
)
def test_bad_input_is_one_line(make, args, message, tmp_path, capsys):
  assert run(*args, '--source', make(tmp_path / 'in'), '--data_dir', tmp_path) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


def bad_label(tmp_path):
  labels = {'train-labels-idx1-ubyte': idx(np.arange(20))}
  return write_folder(tmp_path / 'idx', idx_files() | labels)


@pytest.mark.parametrize(
  ('make', 'args', 'message'),
  [
    (cut_outside, ['imagenet64'], 'ends early'),
    (lacking, ['imagenet64'], 'lacks 1 (n01443537) of 4 classes'),
    (unknown, ['imagenet64'], "holds 1 (n99999999), outside imagenet2012's 4 classes"),
    (bad_label, ['mnist'], 'label 19, outside its 10 classes'),
    (one_class, ['pets', '--size', 8], 'holds 1 class folders (cats)'),
    (own, ['pets', '--size', 'x'], 'flag --size=x: invalid literal'),
    (own, [], 'give one name to prepare'),
  ],
)
def test_the_command_ends_in_one_line_and_code_2_and_keeps_what_is_prepared(
  make, args, message, tmp_path, imagenet_of_four, call
):
  first = call(
    *(prepare, 'mine', '--size', 8, '--workers', 1),
    *('--source', own(tmp_path, name='mine'), '--data_dir', tmp_path / 'data'),
  )
  assert first.returncode == 0, first.stderr
  (tmp_path / 'in').mkdir()
  source = make(tmp_path / 'in')
  before = {p: p.is_dir() or p.read_bytes() for p in tmp_path.rglob('*')}
  done = call(prepare, *args, '--source', source, '--data_dir', tmp_path / 'data')
  assert done.returncode == 2
  assert message in done.stderr and done.stderr.count('\n') == 1, done.stderr
  assert {p: p.is_dir() or p.read_bytes() for p in tmp_path.rglob('*')} == before


def test_kill_9_costs_only_the_shards_at_work(tmp_path, monkeypatch):
  source = write_folder(tmp_path / 'in', {f'{i % 2}/{i:03}.jpg': jpeg(i % 20) for i in range(600)})
  command = (
    'from cfg_jax.core import command; '
    'from cfg_jax.data.prepare import __main__ as prepare, sources; '
    'sources.SHARD_BYTES = 1; sources.MAX_SHARDS = 150; prepare.define_flags(); '
    'command.run(prepare.main, words=True)'
  )
  args = ['pets', '--size=48', f'--source={source}', f'--data_dir={tmp_path / "killed"}']
  command = [sys.executable, '-c', command, *args, '--workers=2']
  folder, journal = tmp_path / 'killed/pets/1.0.0', 'train.shards.jsonl'
  process = subprocess.Popen(command)
  while not (folder / journal).exists() or (folder / journal).read_text().count('\n') < 4:
    assert process.poll() is None
    time.sleep(0.005)
  process.send_signal(signal.SIGKILL)
  process.wait()
  lines = [json.loads(line) for line in (folder / journal).read_text().splitlines()[1:]]
  done = {line['job']: (folder / line['job']).stat().st_mtime_ns for line in lines}
  assert 3 <= len(done) < 150
  with (folder / journal).open('a') as file:
    file.write('{"job": "pe')  # a line torn by the kill

  time.sleep(0.3)  # the workers have ended with their parent: nothing is written any more
  before = sorted(p.name for p in folder.iterdir())
  time.sleep(0.3)
  assert sorted(p.name for p in folder.iterdir()) == before

  monkeypatch.setattr(sources, 'SHARD_BYTES', 1)
  monkeypatch.setattr(sources, 'MAX_SHARDS', 150)
  for data_dir in (tmp_path / 'killed', tmp_path / 'whole'):
    assert run('pets', '--source', source, '--data_dir', data_dir, '--size', 48) == 0
  assert len([json.loads(line) for line in (folder / journal).read_text().splitlines()]) == 151
  assert done.items() < {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}.items()
  assert not list(folder.glob('*partial*'))
  killed, whole = (
    datasets.get('pets', tmp_path / d).open(tmp_path / d, 'train') for d in ('killed', 'whole')
  )
  assert len(killed) == 600
  assert datasets.fingerprint(killed) == datasets.fingerprint(whole)
  assert all((killed[i]['image'] == whole[i]['image']).all() for i in range(0, 600, 7))
