"""The FID Inception network in JAX: TensorFlow's Inception v3 of 2015-12-05, inference only.

FID and IS are defined by this network and these weights. It differs from other Inception v3: its
average pools leave padding out of the count, and the last block pools by maximum (Szegedy et al.
2015, "Rethinking the Inception Architecture", has averages there too). Layers keep the names of the
PyTorch weight file; batch-norm is folded into the kernels.
"""

import logging
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType

from cfg_jax.core import sharding
from cfg_jax.core.errors import UserError
from cfg_jax.evaluate.extractors import resizing, weights
from cfg_jax.evaluate.extractors.resizing import SIZE
from cfg_jax.nets import torch_file

log = logging.getLogger(__name__)

Params = dict[str, dict[str, jax.Array]]

BATCH_NORM_EPS = 1e-3
SPATIAL_CHANNELS = 7  # of Mixed_6d's first branch: 17·17·7 = 2023 features. ADM's sFID


def params_from(state: dict[str, np.ndarray]) -> Params:
  """Kernels (H, W, in, out) with batch-norm folded in, from the weight file's tensors.

  BN(W x) = s W x + (β − s μ) with s = γ/√(var + ε), in float64. Raises UserError where the tensors
  are not this network's.
  """
  params = {}
  try:
    for conv in [k.removesuffix('.conv.weight') for k in state if k.endswith('.conv.weight')]:
      gamma, beta, mean, var = (
        np.asarray(state[f'{conv}.bn.{k}'], np.float64)
        for k in ('weight', 'bias', 'running_mean', 'running_var')
      )
      s = gamma / np.sqrt(var + BATCH_NORM_EPS)
      kernel = state[f'{conv}.conv.weight'].transpose(2, 3, 1, 0) * s
      params[conv] = _float32(kernel, beta - s * mean)
    params['fc'] = _float32(state['fc.weight'].T, state['fc.bias'])
    jax.eval_shape(inception, params, jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32))
  except (KeyError, TypeError, ValueError) as error:
    line = str(error).partition('\n')[0]
    raise UserError(f'these weights are not the FID Inception network: {line}') from None
  return params


def _float32(kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
  return {'kernel': kernel.astype(np.float32), 'bias': bias.astype(np.float32)}


def inception(params: Params, x: jax.Array) -> dict[str, jax.Array]:
  """All taps of scaled images x (N, 299, 299, 3).

  'pool3': (N, 2048), for FID; 'logits_unbiased': (N, 1008), without the last layer's bias, for IS
  by convention; 'logits': with it; 'spatial': (N, 2023), for sFID.
  """
  conv = _convs(params)
  x = conv(x, 'Conv2d_1a_3x3', stride=2, valid=True)
  x = conv(x, 'Conv2d_2a_3x3', valid=True)
  x = conv(x, 'Conv2d_2b_3x3')
  x = _max_pool(x, 2)
  x = conv(x, 'Conv2d_3b_1x1')
  x = conv(x, 'Conv2d_4a_3x3', valid=True)
  x = _max_pool(x, 2)  # (N, 35, 35, 192)
  for name in ('Mixed_5b', 'Mixed_5c', 'Mixed_5d'):
    x = _block_a(_convs(params, name), x)
  x = _block_b(_convs(params, 'Mixed_6a'), x)  # (N, 17, 17, 768)
  for name in ('Mixed_6b', 'Mixed_6c'):
    x = _block_c(_convs(params, name), x)
  spatial = conv(x, 'Mixed_6d.branch1x1')[..., :SPATIAL_CHANNELS]
  for name in ('Mixed_6d', 'Mixed_6e'):
    x = _block_c(_convs(params, name), x)
  x = _block_d(_convs(params, 'Mixed_7a'), x)  # (N, 8, 8, 1280)
  x = _block_e(_convs(params, 'Mixed_7b'), x, _avg_pool)
  x = _block_e(_convs(params, 'Mixed_7c'), x, _max_pool)  # (N, 8, 8, 2048)
  pool3 = x.mean(axis=(1, 2))
  logits = jnp.matmul(pool3, params['fc']['kernel'], precision=lax.Precision.HIGHEST)
  return {
    'pool3': pool3,
    'spatial': spatial.reshape(len(spatial), -1),
    'logits_unbiased': logits,
    'logits': logits + params['fc']['bias'],
  }


Convs = Callable[..., jax.Array]


def _convs(params: Params, block: str = '') -> Convs:
  """f(x, *names): the block's layers of these names in turn; stride and `valid` are the last's."""

  def apply(x: jax.Array, *names: str, stride: int = 1, valid: bool = False) -> jax.Array:
    for name in names:
      is_last = name == names[-1]
      layer = params[f'{block}.{name}' if block else name]
      x = _conv(layer, x, stride if is_last else 1, valid and is_last)
    return x

  return apply


def _conv(layer: dict[str, jax.Array], x: jax.Array, stride: int, valid: bool) -> jax.Array:
  """Convolution, (folded) batch-norm, ReLU; padded with zeros to the size of x unless `valid`."""
  kernel = layer['kernel']
  # XLA's CPU convolution is up to four times as fast with any padding as with none, so one row and
  # one column more are computed, and cropped.
  padding = ((0, 1), (0, 1)) if valid else 'SAME'
  y = lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=lax.Precision.HIGHEST,
  )
  if valid:
    h, w = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel.shape))
    y = y[:, :h, :w]
  return jax.nn.relu(y + layer['bias'])


def _block_a(conv: Convs, x: jax.Array) -> jax.Array:
  return _join(
    conv(x, 'branch1x1'),
    conv(x, 'branch5x5_1', 'branch5x5_2'),
    conv(x, 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3'),
    conv(_avg_pool(x), 'branch_pool'),
  )


def _block_b(conv: Convs, x: jax.Array) -> jax.Array:
  return _join(
    conv(x, 'branch3x3', stride=2, valid=True),
    conv(x, 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3', stride=2, valid=True),
    _max_pool(x, 2),
  )


def _block_c(conv: Convs, x: jax.Array) -> jax.Array:
  return _join(
    conv(x, 'branch1x1'),
    conv(x, 'branch7x7_1', 'branch7x7_2', 'branch7x7_3'),
    conv(x, *(f'branch7x7dbl_{i}' for i in range(1, 6))),
    conv(_avg_pool(x), 'branch_pool'),
  )


def _block_d(conv: Convs, x: jax.Array) -> jax.Array:
  return _join(
    conv(x, 'branch3x3_1', 'branch3x3_2', stride=2, valid=True),
    conv(x, *(f'branch7x7x3_{i}' for i in range(1, 5)), stride=2, valid=True),
    _max_pool(x, 2),
  )


def _block_e(conv: Convs, x: jax.Array, pool: Callable[[jax.Array], jax.Array]) -> jax.Array:
  a = conv(x, 'branch3x3_1')
  b = conv(x, 'branch3x3dbl_1', 'branch3x3dbl_2')
  return _join(
    conv(x, 'branch1x1'),
    conv(a, 'branch3x3_2a'),
    conv(a, 'branch3x3_2b'),
    conv(b, 'branch3x3dbl_3a'),
    conv(b, 'branch3x3dbl_3b'),
    conv(pool(x), 'branch_pool'),
  )


def _join(*branches: jax.Array) -> jax.Array:
  return jnp.concatenate(branches, axis=-1)


def _windows(x: jax.Array, axis: int, stride: int) -> list[jax.Array]:
  """The first, second and third element of each window of 3 along an axis.

  Pools of these slices fuse into one loop; `lax.reduce_window` takes five times as long on a CPU.
  """
  count = (x.shape[axis] - 3) // stride + 1
  return [lax.slice_in_dim(x, i, i + stride * (count - 1) + 1, stride, axis) for i in range(3)]


def _max_pool(x: jax.Array, stride: int = 1) -> jax.Array:
  """3×3 maxima: of complete windows with stride 2, of the part inside the image with stride 1."""
  if stride == 1:
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
  for axis in (1, 2):
    a, b, c = _windows(x, axis, stride)
    x = jnp.maximum(jnp.maximum(a, b), c)
  return x


def _avg_pool(x: jax.Array) -> jax.Array:
  """3×3 means over the part of each window that lies inside the image."""
  for axis in (1, 2):
    n = x.shape[axis]
    padding = [(1, 1) if i == axis else (0, 0) for i in range(4)]
    a, b, c = _windows(jnp.pad(x, padding), axis, 1)
    count = np.where(np.isin(np.arange(n), (0, n - 1)), 2, 3).astype(np.float32)
    x = (a + b + c) / count.reshape([-1 if i == axis else 1 for i in range(4)])
  return x


class Inception:
  """The extractor of FID, sFID and IS: an `Extractor` whose batches spread over local devices.

  Images of any one size, uint8 RGB; grey ones are widened. Batches are padded to `batch_size`, so
  each image size compiles once. Weights with another sha256 than the public file's are refused
  unless `unknown_weights`; what comes of them is then not called FID (`is_public` is false).
  """

  dim = 2048
  labels_of = None  # ImageNet's classes, in an order of their own

  def __init__(
    self,
    path: str | os.PathLike | None = None,
    *,
    resize: str = 'tf1',
    batch_size: int = 64,
    unknown_weights: bool = False,
  ):
    """Loads weights from `path` or where `weights.locate` finds them; UserError if it cannot."""
    resizing.grid(SIZE, resize)  # refuses an unknown name before anything is read
    path = weights.locate(path)
    self.sha256 = weights.sha256(path)
    self.is_public = self.sha256 == weights.SHA256
    if not (self.is_public or unknown_weights):
      raise UserError(
        f'{path} has sha256 {self.sha256}, the FID weights have {weights.SHA256}; download '
        f'{weights.URL} again, or allow unknown weights: the numbers are then not called FID.'
      )
    self.name = 'inception-2015-12-05' if self.is_public else 'inception-unknown'
    self.resize = resize
    devices = jax.local_devices()
    self.batch_size = -(-batch_size // len(devices)) * len(devices)
    mesh = jax.make_mesh((len(devices),), ('data',), (AxisType.Auto,), devices=devices)
    self._sharding = sharding.batch(mesh)
    self._params = jax.device_put(params_from(torch_file.read(path)), sharding.replicated(mesh))
    self._apply = jax.jit(_extract, static_argnames='how')
    self._told = False

  def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """'features' (N, 2048), 'spatial' (N, 2023), 'logits' without bias (N, 1008), float32.

    images: uint8 (N, H, W, 3), or (N, H, W, 1). Raises UserError on anything else.
    """
    images = np.asarray(images)
    known = images.ndim == 4 and images.shape[-1] in (1, 3) and images.size
    if images.dtype != np.uint8 or not known:
      raise UserError(
        f'images are {images.dtype} {images.shape}; Inception takes uint8 (N, H, W, 3), 0 to 255.'
      )
    if images.shape[-1] == 1:
      if not self._told:
        log.info('Grey images: their one channel is repeated as red, green and blue.')
        self._told = True
      images = np.repeat(images, 3, axis=-1)
    out, pending = [], None
    for start in range(0, len(images), self.batch_size):
      batch = images[start : start + self.batch_size]
      padding = self.batch_size - len(batch)
      batch = np.pad(batch, ((0, padding), (0, 0), (0, 0), (0, 0)))
      batch = jax.device_put(batch, self._sharding)
      running = self._apply(self._params, batch, how=self.resize)
      if pending is not None:  # fetch the last batch's results while this one is computed
        out.append(jax.device_get(pending))
      pending = running
    out.append(jax.device_get(pending))
    return {key: np.concatenate([o[key] for o in out])[: len(images)] for key in out[0]}


def _extract(params: Params, images: jax.Array, how: str) -> dict[str, jax.Array]:
  """`inception` of uint8 images of any size, under an `Extractor`'s names."""
  images = resizing.resize(images.astype(jnp.float32), how)
  taps = inception(params, resizing.scale(images, how))
  return {
    'features': taps['pool3'],
    'spatial': taps['spatial'],
    'logits': taps['logits_unbiased'],
  }
