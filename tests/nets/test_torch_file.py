"""The reader of PyTorch files against files that torch.save wrote, and against hostile ones."""

import pickle
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.nets import torch_file
from tests.random_inception import GOLDEN


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth'])
def test_reads_what_torch_wrote(name):
  state = torch_file.read(GOLDEN / name)
  assert list(state) == ['weight', 'count', 'view']
  np.testing.assert_array_equal(state['weight'], np.arange(6, dtype=np.float32).reshape(2, 3) / 7)
  assert state['weight'].dtype == np.float32
  assert state['count'] == 3 and state['count'].dtype == np.int64
  np.testing.assert_array_equal(state['view'], np.arange(2, 8).reshape(2, 3).T)


@pytest.mark.parametrize(
  'storage, dtype', [('HalfStorage', np.float16), ('BFloat16Storage', np.dtype(jnp.bfloat16))]
)
def test_half_precision_keeps_its_type(tmp_path, storage, dtype):
  """The bytes of the file's float32, read as a file of that type would name them."""
  path = tmp_path / 'half.pth'
  with zipfile.ZipFile(GOLDEN / 'zip.pth') as whole, zipfile.ZipFile(path, 'w') as half:
    for name in whole.namelist():
      half.writestr(name, whole.read(name).replace(b'FloatStorage', storage.encode()))
  found = torch_file.read(path)['weight']
  assert found.dtype == dtype and found.shape == (2, 3)
  assert found.tobytes() == (np.arange(6, dtype=np.float32) / 7).tobytes()[:12]


class Malicious:
  def __init__(self, target):
    self.target = target

  def __reduce__(self):
    return Path.touch, (self.target,)


@pytest.mark.parametrize('kind', ['zip', 'legacy'])
def test_malicious_pickle_is_refused_not_run(tmp_path, kind):
  target, path = tmp_path / 'executed', tmp_path / 'weights.pth'
  payload = pickle.dumps({'weight': Malicious(target)})
  if kind == 'zip':
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('archive/data.pkl', payload)
  else:
    path.write_bytes(payload)
  with pytest.raises(ValueError, match=r'weights.pth .*refused: .*Path') as error:
    torch_file.read(path)
  assert '\n' not in str(error.value) and not target.exists()
  pickle.loads(payload)  # it does run elsewhere
  assert target.exists()


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth'])
def test_damaged_files(tmp_path, name):
  whole, path = (GOLDEN / name).read_bytes(), tmp_path / name
  for damaged in (whole[:-9], whole[: len(whole) // 2], b'', b'no weights'):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f'{name} is no readable PyTorch state dictionary'):
      torch_file.read(path)


def test_view_outside_its_storage(tmp_path):
  path = tmp_path / 'weights.pth'
  data = (GOLDEN / 'legacy.pth').read_bytes()
  at = data.index(b'K\x02K\x03K\x02\x86')  # offset 2, shape (3, 2) of 'view'
  path.write_bytes(data[:at] + b'K\x09' + data[at + 2 :])
  with pytest.raises(ValueError, match='outside its storage'):
    torch_file.read(path)
