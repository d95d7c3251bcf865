"""Images on disk by their indices, from only the files that they are in."""

import numpy as np
import pytest

from cfg_jax.core.errors import UserError
from cfg_jax.generate import store
from cfg_jax.generate.store import SampleSet

SAMPLE = {
  'sampler': {'name': 'ddpm', 'num_steps': 4},
  'guidance': {'w': 1.0},
  'ema': True,
  'seed': 0,
}


@pytest.fixture
def folder(tmp_path):
  """Images 0 to 19 but 8 to 11, of the grey level of their index, label index mod 3."""
  sample_set = SampleSet({'step': 1, 'sample': SAMPLE})
  for first in (12, 0, 16, 4, 2):  # some twice
    indices = np.arange(first, first + 4)
    images = np.broadcast_to(indices[:, None, None, None], (4, 2, 2, 1)).astype(np.uint8)
    sample_set.write(tmp_path, first, images, (indices % 3).astype(np.int32))
  return tmp_path / sample_set.path


def test_index(folder, tmp_path):
  indices, labels = store.index(folder)
  np.testing.assert_array_equal(indices, [*range(8), *range(12, 20)])
  np.testing.assert_array_equal(labels, indices % 3)
  assert [len(a) for a in store.index(tmp_path / 'none')] == [0, 0]


def test_pick(folder):
  np.testing.assert_array_equal(store.pick(folder, np.array([13, 0, 7]))[:, 0, 0, 0], [13, 0, 7])
  with pytest.raises(UserError, match='no sample 9'):
    store.pick(folder, np.array([1, 9]))


def test_only_the_files_that_are_needed_are_opened(folder):
  (folder / '00000004-00000008.npz').write_bytes(b'damaged')
  assert store.pick(folder, np.array([3, 12])).shape == (2, 2, 2, 1)
  for read in (store.index, lambda f: store.pick(f, np.array([5]))):
    with pytest.raises(UserError, match='00000004-00000008.npz is damaged'):
      read(folder)


def test_what_are_no_images_is_refused(folder):
  arrays = {'indices': np.arange(20, 24), 'labels': np.zeros(4), 'images': np.zeros((4, 2, 2, 1))}
  np.savez(folder / '00000020-00000024.npz', **arrays)
  with pytest.raises(UserError, match='float64'):
    store.pick(folder, np.array([20]))


def test_a_header_that_says_fewer_images_is_damage(folder):
  """What an archive's checksum does not see, since the rest is never read."""
  file = folder / '00000012-00000016.npz'
  with np.load(file) as arrays:
    found = dict(arrays)
  for changed in ({'images': found['images'][:2]}, {'indices': found['indices'] + 1}):
    np.savez(file, **found | changed)
    with pytest.raises(UserError, match='00000012-00000016.npz is damaged .it holds'):
      store.pick(folder, np.array([13]))
