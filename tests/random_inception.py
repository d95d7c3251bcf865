"""Random weights for the FID Inception network under which features keep their scale.

PyTorch's default initialisation shrinks them to 2e-8, and a comparison proves nothing; here
convolutions are He-normal, batch-norm scales and variances lie in [0.75, 1.25], biases are small.
"""

import collections
import json
import pickle
import sys
import types
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np

GOLDEN = Path(__file__).parent / 'golden'


def random_state(seed: int = 0) -> dict[str, np.ndarray]:
  """The 472 float32 tensors of a weight file, by name; the same numbers for the same seed."""
  shapes = json.loads((GOLDEN / 'inception_shapes.json').read_text())
  rng = np.random.RandomState(seed)
  state = {}
  for name, shape in shapes.items():
    if name.endswith('conv.weight'):
      value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(('bn.weight', 'bn.running_var')):
      value = rng.uniform(0.75, 1.25, shape)
    elif name == 'fc.weight':
      value = rng.normal(size=shape) / np.sqrt(shape[1])
    else:
      value = 0.1 * rng.normal(size=shape)
    state[name] = value.astype(np.float32)
  return state


def images(seed: int, *shape: int) -> np.ndarray:
  """uint8 images of shape (N, H, W, C) with large shapes in them, not white noise alone."""
  rng = np.random.RandomState(seed)
  n, h, w, c = shape
  y, x = np.linspace(0, 1, h)[:, None, None], np.linspace(0, 1, w)[:, None]
  phase = rng.uniform(0, 6, (4, n, 1, 1, c))
  waves = np.sin(9 * x * phase[0] + phase[1]) * np.cos(7 * y * phase[2] + phase[3])
  return np.clip(127 + 100 * waves + 20 * rng.normal(size=shape), 0, 255).astype(np.uint8)


def save(path: Path, state: dict[str, np.ndarray]) -> None:
  """Writes float32 tensors as torch.save does (its zip format), without PyTorch."""

  def rebuild(*args):
    raise AssertionError('only its name is written')

  storage = type('FloatStorage', (), {'__module__': 'torch'})
  rebuild.__module__, rebuild.__name__ = 'torch._utils', '_rebuild_tensor_v2'
  rebuild.__qualname__ = rebuild.__name__
  modules = {name: types.ModuleType(name) for name in ('torch', 'torch._utils')}
  modules['torch'].FloatStorage = storage
  modules['torch._utils']._rebuild_tensor_v2 = rebuild
  tensor = collections.namedtuple('tensor', ('key',))

  class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
      return obj.key if isinstance(obj, tensor) else None

    def reducer_override(self, obj):
      if not isinstance(obj, np.ndarray):
        return NotImplemented
      pid = ('storage', storage, str(len(data)), 'cpu', obj.size)
      data.append(np.ascontiguousarray(obj, np.float32).tobytes())
      stride = tuple(s // obj.itemsize for s in np.ascontiguousarray(obj).strides)
      return rebuild, (tensor(pid), 0, obj.shape, stride, False, None)

  data = []
  with zipfile.ZipFile(path, 'w') as archive, mock.patch.dict(sys.modules, modules):
    with archive.open('archive/data.pkl', 'w') as file:
      Pickler(file, 2).dump(state)
    archive.writestr('archive/version', '3\n')
    for key, value in enumerate(data):
      archive.writestr(f'archive/data/{key}', value)
