"""A classifier's run as an extractor, for data that Inception says little of.

Images are seen as they are, at the run's greatest λ: it is best trained with method.noised=false.
One that was trained on noise will do, since there z_λ is the image but for rounding, though it has
spent most of its training on what no sample looks like.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding, steps
from cfg_jax.core.checkpoint import restore_params
from cfg_jax.core.errors import UserError
from cfg_jax.data import batches, registry
from cfg_jax.evaluate import features
from cfg_jax.methods import classifier
from cfg_jax.nets import encoder

PIXELS = 2**18  # of the images that are seen at once, at most


def problem(folder: Path, data: ml_collections.ConfigDict | None = None) -> str | None:
  """What is wrong with a folder as an extractor, in one line, if anything is.

  data: a config's, whose images it is to see. The run's config and the names of its files are read.
  """
  if not (folder / 'config.json').exists():
    return "holds no run (no config.json): name the folder of a classifier's"
  try:
    config = config_lib.of_run(folder)
    if config.method.name != 'classifier':
      return f'is a run of {config.method.name}: name one of configs/classifier_*.py'
    its = encoder.of(config).image_shape
  except UserError as error:
    return f'cannot be used: {str(error).rstrip(".")}'
  if not steps.steps_on_disk(folder):
    return 'has no checkpoint: train it first'
  own = data and registry.find(data)  # where there is none, that is told by its owner
  if own and own.image_shape != its:
    takes, given = ('×'.join(map(str, shape)) for shape in (its, own.image_shape))
    return f'takes images of {takes}, and those of {data.name} are {given}: name another'
  return None


def sha256(folder: Path) -> str:
  """What names the weights that `OfRun` would have, from their record alone."""
  return steps.ema_sha256(folder, steps.newest(folder))


class OfRun:
  """An `evaluate.features.Extractor`: the EMA of the newest checkpoint of a classifier's run.

  Its name is that of the run's data set, so the distance is called FD-<data set>.
  """

  resize = 'none'
  is_public = False

  def __init__(self, folder: Path):
    """Loads the weights onto all local devices, of a run with which nothing is wrong.

    UserError where they are damaged.
    """
    config = config_lib.of_run(folder)
    network, step = encoder.of(config), steps.newest(folder)
    self.name = self.labels_of = config.data.name
    self.sha256 = steps.ema_sha256(folder, step)
    self._shape, self._folder = network.image_shape, folder
    self._mesh = sharding.data_mesh(jax.local_devices())
    abstract = {'network': jax.eval_shape(lambda: encoder.create_params(network, 0))}
    _, params = restore_params(abstract, folder, step, self._mesh)
    self._params, self._apply = params['network'], encoder.apply_fn(network)
    self._lam = classifier.ends_of(config)[1]
    fit = min(features.BATCH, max(1, PIXELS // (self._shape[0] * self._shape[1])))
    self._batch = -(-fit // self._mesh.size) * self._mesh.size
    seen = jax.eval_shape(self._apply, self._params, jnp.zeros((1, *self._shape)), jnp.zeros(1))
    self.dim = seen[1].shape[1]

  def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """'features' (N, D), 'logits' (N, K) of uint8 (N, H, W, C); UserError on images of others."""
    images = np.asarray(images)
    if images.shape[1:] != self._shape or images.dtype != np.uint8:
      takes = ', '.join(map(str, self._shape))
      raise UserError(
        f'images are {images.dtype} {images.shape}; the classifier {self._folder} takes uint8 '
        f'(N, {takes}).'
      )
    lam, found = np.full(self._batch, self._lam, np.float32), []
    split = sharding.batch(self._mesh)
    for start in range(0, len(images), self._batch):
      part = images[start : start + self._batch]
      filled = np.pad(part, ((0, self._batch - len(part)), (0, 0), (0, 0), (0, 0)))
      placed = jax.device_put((batches.to_x(filled), lam), split)
      with jax.default_matmul_precision('highest'):  # on GPUs too, so that numbers agree
        found.append(_logits_and_features(self._params, *placed, apply=self._apply))
    logits, of_network = (np.concatenate([f[j] for f in found])[: len(images)] for j in (0, 1))
    return {'logits': logits, 'features': of_network}


@functools.partial(jax.jit, static_argnames='apply')
def _logits_and_features(params, x, lam, apply):
  return apply(params, x, lam)
