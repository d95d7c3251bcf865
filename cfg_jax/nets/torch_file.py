"""Files of torch.save, read without PyTorch: dictionaries of tensors, and nothing else.

Such a file is a pickle. It is read here by an unpickler that knows the few names that a dictionary
of tensors needs and refuses all others, so that no file can run code; that takes fewer lines than a
conversion command, and nobody has to install PyTorch to convert.
"""

import collections
import dataclasses
import os
import pickle
import zipfile
from typing import BinaryIO

import jax.numpy as jnp
import numpy as np

from cfg_jax.core.errors import UserError

_DTYPES = {
  'FloatStorage': np.float32,
  'DoubleStorage': np.float64,
  'HalfStorage': np.float16,
  'BFloat16Storage': np.dtype(jnp.bfloat16),
  'LongStorage': np.int64,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # opens a file of torch.save before PyTorch 1.6


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The tensors of a PyTorch state dictionary, by name; zip files (1.6 on) and older ones.

  Tensors may be parameters, views of one another, and of half precision; they keep their types.

  Raises ValueError, one line, on a file that is damaged or holds anything but tensors.
  """
  try:
    with open(path, 'rb') as file:
      is_zip = file.read(4) == b'PK\x03\x04'
      file.seek(0)
      state, storages = (_read_zip if is_zip else _read_legacy)(file)
    if not isinstance(state, dict) or not all(isinstance(t, _Tensor) for t in state.values()):
      raise UserError('not a dictionary of tensors')
    return {name: tensor.array(storages[tensor.storage.key]) for name, tensor in state.items()}
  except Exception as error:  # a damaged pickle can raise anything
    reason = str(error) or type(error).__name__
    raise UserError(f'{path} is no readable PyTorch state dictionary: {reason}') from None


@dataclasses.dataclass(frozen=True)
class _Storage:
  key: str
  dtype: type


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A view of a storage whose bytes come later in the file."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]

  def array(self, data: bytes) -> np.ndarray:
    flat = np.frombuffer(data, self.storage.dtype)
    last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride))
    if min(self.shape, default=1) < 1 or min(self.offset, *self.stride, 0) < 0 or last >= flat.size:
      raise UserError(f'tensor {self.shape} reaches outside its storage of {flat.size}')
    stride = [s * flat.itemsize for s in self.stride]
    return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, stride).copy()


def _rebuild_tensor(storage, offset, shape, stride, *_) -> _Tensor:
  if not isinstance(storage, _Storage):
    raise pickle.UnpicklingError('a tensor without storage')
  return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _rebuild_parameter(tensor, *_) -> _Tensor:
  return tensor


class _Unpickler(pickle.Unpickler):
  """Knows ordered dictionaries, tensors and their storages; refuses every other name."""

  def find_class(self, module: str, name: str):
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _rebuild_tensor
    if (module, name) == ('torch._utils', '_rebuild_parameter'):
      return _rebuild_parameter
    if module == 'torch' and name in _DTYPES:
      return _DTYPES[name]
    raise pickle.UnpicklingError(f'refused: it asks for {module}.{name}, which is not a tensor')

  def persistent_load(self, pid):
    kind, dtype, key = pid[:3]
    if kind != 'storage' or dtype not in _DTYPES.values():
      raise pickle.UnpicklingError(f'refused: unknown persistent id {kind!r}')
    return _Storage(str(key), dtype)


def _read_zip(file: BinaryIO) -> tuple[object, dict[str, bytes]]:
  with zipfile.ZipFile(file) as archive:
    names = archive.namelist()
    root = next(name for name in names if name.endswith('/data.pkl')).removesuffix('data.pkl')
    if f'{root}byteorder' in names and archive.read(f'{root}byteorder') != b'little':
      raise UserError('big-endian')
    with archive.open(f'{root}data.pkl') as pickled:
      state = _Unpickler(pickled).load()
    prefix = f'{root}data/'
    return state, {n[len(prefix) :]: archive.read(n) for n in names if n.startswith(prefix)}


def _read_legacy(file: BinaryIO) -> tuple[object, dict[str, bytes]]:
  """Pickles of the magic number, version, machine, object and storage keys; then the storages."""
  magic, _, machine = (_Unpickler(file).load() for _ in range(3))
  if magic != _LEGACY_MAGIC or not machine['little_endian']:
    raise UserError('not written by torch.save')
  unpickler = _Unpickler(file)
  state = unpickler.load()
  dtypes = {t.storage.key: t.storage.dtype for t in state.values()}
  storages = {}
  for key in _Unpickler(file).load():
    count = int.from_bytes(file.read(8), 'little')
    size = count * np.dtype(dtypes[key]).itemsize
    storages[key] = file.read(size)
    if len(storages[key]) != size:
      raise UserError('truncated')
  return state, storages
