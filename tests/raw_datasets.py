"""Data sets as they are published, of two photographs' patches; what `prepare` makes of them."""

import functools
import gzip
import io
import os
import sys
import tarfile

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from cfg_jax.data import registry as datasets
from cfg_jax.data.prepare import __main__ as prepare
from cfg_jax.data.prepare import images
from tests.conftest import SYNSETS


@functools.cache
def patch(seed, shape=(60, 80)):
  """A patch of one of scikit-learn's two photographs, (H, W, 3)."""
  rng = np.random.default_rng(seed)
  photo = load_sample_images().images[seed % 2]
  y, x = (rng.integers(0, n - m) for n, m in zip(photo.shape, shape))
  return photo[y : y + shape[0], x : x + shape[1]]


def jpeg(seed, format='JPEG', mode='RGB', **options):
  buffer = io.BytesIO()
  Image.fromarray(patch(seed)).convert(mode).save(buffer, format, **options)
  return buffer.getvalue()


def prepared(data, size):
  """What a data set should hold for the encoded image `data`."""
  return images.resize(images.central_square(images.decode(data, upright=False)[0]), size)


def write_tar(path, files):
  with tarfile.open(path, 'w') as tar:
    for name, data in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return path


def tar_bytes(files, tmp_path):
  return write_tar(tmp_path / 'inner.tar', files).read_bytes()


def write_folder(path, files):
  for name, data in files.items():
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(data)
  return path


def idx(array):
  shape = np.array(array.shape, '>i4').tobytes()
  return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def grey_patches(count):
  images = np.stack([patch(i, (28, 28))[..., 1] for i in range(count)])
  return images, np.arange(count) % 10


def idx_files(zipped=False):
  images, labels = grey_patches(30)
  files = {
    'train-images-idx3-ubyte': idx(images[:20]),
    'train-labels-idx1-ubyte': idx(labels[:20]),
    't10k-images-idx3-ubyte': idx(images[20:]),
    't10k-labels-idx1-ubyte': idx(labels[20:]),
  }
  return {f'{k}.gz': gzip.compress(v) for k, v in files.items()} if zipped else files


def run(name, *args):
  """As the command: its exit status, with a ValueError's text on stderr."""
  options = {flag.removeprefix('--'): value for flag, value in zip(args[::2], args[1::2])}
  try:
    return 3 if prepare.prepare(name, **options) else 0
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2


def own(tmp_path, count=3, name='photos'):
  files = {f'{c}/{i}.jpg': jpeg(i) for i in range(count) for c in ('cats', 'big dogs')}
  return write_folder(tmp_path / name, files)


def training_files():
  return {
    synset: {f'{synset}_{i}.JPEG': jpeg(10 * c + i) for i in range(3)}
    for c, synset in enumerate(SYNSETS)
  }


def training_tar(tmp_path, files):
  """As ILSVRC2012_img_train.tar: a tar for each class, here not in order."""
  inner = {f'{synset}.tar': tar_bytes(files[synset], tmp_path) for synset in reversed(files)}
  return write_tar(tmp_path / 'ILSVRC2012_img_train.tar', inner)


def content(name, data_dir, split='train'):
  source = datasets.get(name, data_dir).open(data_dir, split)
  return [(source[i]['image'], source[i]['label']) for i in range(len(source))]


def assert_holds(found, expected):
  assert [label for _, label in found] == [label for _, label in expected]
  for (image, _), (other, _) in zip(found, expected):
    np.testing.assert_array_equal(image, other)


def cut_outside(tmp_path):
  tar = training_tar(tmp_path, training_files())
  os.truncate(tar, tar.stat().st_size - 25_000)
  return tar


def lacking(tmp_path):
  return training_tar(tmp_path, {s: f for s, f in training_files().items() if s != SYNSETS[1]})


def unknown(tmp_path):
  return training_tar(tmp_path, training_files() | {'n99999999': {'x.JPEG': jpeg(0)}})
