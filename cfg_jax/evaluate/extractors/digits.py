"""The digits' feature extractor: a small classifier of 8×8 digits, shipped as weights.

`experiments/train_digits_classifier.py` made the weights, and says how. Its distance is called
FD-digits, never FID: that name belongs to Inception's features.
"""

import functools
import hashlib
import io
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.core.errors import UserError

BATCH_SIZE = 500  # every call is padded to a multiple, so that it compiles once


def logits_and_features(params: dict, images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Two convolutions, two dense layers: uint8 (B, 8, 8, 1) → logits (B, 10), features (B, 64)."""
  x = images.astype(jnp.float32) / 127.5 - 1
  for name, stride in (('conv1', 1), ('conv2', 2)):
    x = jax.lax.conv_general_dilated(
      x,
      params[name],
      (stride, stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=jax.lax.Precision.HIGHEST,
    )
    x = jax.nn.relu(x + params[f'{name}_bias'])
  dense = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
  x = x.reshape(len(x), -1)
  features = jax.nn.relu(dense(x, params['dense1']) + params['dense1_bias'])
  return dense(features, params['dense2']) + params['dense2_bias'], features


class DigitsExtractor:
  """An `evaluate.features.Extractor` for digits."""

  name = labels_of = 'digits'
  dim = 64
  resize = 'none'
  is_public = False

  def __init__(self):
    """Reads the weights inside the package."""
    data = (resources.files('cfg_jax.evaluate.extractors') / 'digits.npz').read_bytes()
    self.sha256 = hashlib.sha256(data).hexdigest()
    with np.load(io.BytesIO(data)) as arrays:
      self._params = {name: jnp.asarray(arrays[name]) for name in arrays.files}
    self._call = jax.jit(logits_and_features)

  def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """uint8 (N, 8, 8, 1) → 'features' (N, 64), 'logits' (N, 10)."""
    if images.shape[1:] != (8, 8, 1) or images.dtype != np.uint8:
      raise UserError(
        f'images are {images.dtype} {images.shape}; the digits extractor takes uint8 (N, 8, 8, 1).'
      )
    logits, features = [], []
    for start in range(0, len(images), BATCH_SIZE):
      part = images[start : start + BATCH_SIZE]
      padded = np.pad(part, ((0, BATCH_SIZE - len(part)), (0, 0), (0, 0), (0, 0)))
      out = self._call(self._params, padded)
      logits.append(np.asarray(out[0])[: len(part)])
      features.append(np.asarray(out[1])[: len(part)])
    return {'logits': np.concatenate(logits), 'features': np.concatenate(features)}
