"""MNIST, Fashion-MNIST and CIFAR-10, prepared from the files they are published as."""

import gzip
import os

import numpy as np
import pytest

from cfg_jax.data.prepare import classics
from tests.raw_datasets import (
  assert_holds,
  content,
  grey_patches,
  idx,
  idx_files,
  patch,
  run,
  tar_bytes,
  write_folder,
)


@pytest.mark.parametrize(('name', 'zipped'), [('mnist', False), ('fashion_mnist', True)])
def test_idx_files_become_mnist(name, zipped, tmp_path, monkeypatch):
  monkeypatch.setattr(classics, 'SHARD_IMAGES', 8)
  source = write_folder(tmp_path / 'idx', idx_files(zipped))
  assert run(name, '--source', source, '--data_dir', tmp_path) == 0
  images, labels = grey_patches(30)
  expected = list(zip(images[..., None], labels))
  assert_holds(content(name, tmp_path), expected[:20])
  assert_holds(content(name, tmp_path, 'test'), expected[20:])


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda f: f.pop('t10k-labels-idx1-ubyte'), 'lacks t10k-labels-idx1-ubyte'),
    (
      lambda f: f.update({'train-images-idx3-ubyte': f['train-images-idx3-ubyte'][:-1]}),
      'is not a whole IDX file',
    ),
    (
      lambda f: f.update({'train-labels-idx1-ubyte': idx(np.arange(20))}),
      'label 19, outside its 10 classes',
    ),
    (
      lambda f: f.update({'train-labels-idx1-ubyte': idx(np.zeros(19))}),
      '20 train images and 19 labels',
    ),
    (
      lambda f: f.update({'t10k-labels-idx1-ubyte': f['t10k-images-idx3-ubyte']}),
      'is not a whole IDX file of 1 dimensions',
    ),
  ],
)
def test_bad_idx_files_are_one_line(change, message, tmp_path, capsys):
  files = idx_files()
  change(files)
  source = write_folder(tmp_path / 'idx', files)
  assert run('mnist', '--source', source, '--data_dir', tmp_path) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


def cifar(tmp_path, batches=5, extra=b''):
  """As cifar-10-binary.tar.gz, with 10 images a batch."""
  colours = np.stack([patch(i, (32, 32)) for i in range(60)])
  labels = np.arange(60) * 3 % 10
  records = [bytes([c]) + i.transpose(2, 0, 1).tobytes() for c, i in zip(labels, colours)]
  files = {
    f'data_batch_{b + 1}.bin': b''.join(records[10 * b : 10 * b + 10]) for b in range(batches)
  }
  files['test_batch.bin'] = b''.join(records[50:]) + extra
  files['batches.meta.txt'] = b'\n'.join(f'class{i}'.encode() for i in range(10)) + b'\n\n'
  tar = tar_bytes({f'cifar-10-batches-bin/{name}': f for name, f in files.items()}, tmp_path)
  path = tmp_path / 'cifar-10-binary.tar.gz'
  path.write_bytes(gzip.compress(tar))
  return path, list(zip(colours, labels))


def test_the_binary_tar_becomes_cifar10(tmp_path):
  path, expected = cifar(tmp_path)
  assert run('cifar10', '--source', path, '--data_dir', tmp_path) == 0
  assert_holds(content('cifar10', tmp_path), expected[:50])
  assert_holds(content('cifar10', tmp_path, 'test'), expected[50:])


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda p: cifar(p, batches=4)[0], "lacks 'data_batch_5.bin'"),
    (lambda p: cifar(p, extra=b'x')[0], '30731 bytes of test, no multiple of 3073'),
    (lambda p: os.truncate(cifar(p)[0], 20_000) or p / 'cifar-10-binary.tar.gz', 'ends early'),
  ],
)
def test_a_bad_cifar_tar_is_one_line(change, message, tmp_path, capsys):
  assert run('cifar10', '--source', change(tmp_path), '--data_dir', tmp_path) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
