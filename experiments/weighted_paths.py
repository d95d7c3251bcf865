"""Digits drawn at a few w₀, weighted towards every w: what `one_run_many_w` draws and scores.

The model is the one in the package, the sampler Algorithm 2 in 12 steps with v = 0.3, without its
last one from λ = 4 to 20, see `reweight.draw`.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.core import files, sharding
from cfg_jax.core.progress import Progress
from cfg_jax.data import kinds, registry
from cfg_jax.equations import conditioning, samplers
from cfg_jax.equations.guidance import pairs, reweight
from cfg_jax.evaluate import errors, features, metrics
from cfg_jax.evaluate.features import Extractor
from cfg_jax.evaluate.references import Reference
from cfg_jax.generate import explore
from cfg_jax.methods import drawing
from cfg_jax.nets import unet

W = [k / 10 for k in range(41)]  # Section 4
LAM = np.asarray(samplers.lambda_grid(12))[:-1]
V = 0.3  # Section 4
BATCH = 200  # images at once
CHUNK = 400  # paths of one w₀ that are drawn together, of classes in turn
PATHS_SEED = 1000  # of their noise; direct runs have 0, 1, …
FD, IS = 'FD-digits', 'IS'
NEGLIGIBLE = 1e-4  # of the mean weight: such an image is not looked at


class Score(NamedTuple):
  """Metrics of weighted images, by FD and IS, each with its error."""

  metrics: dict[str, tuple[float, float]]
  effective: float


class Paths(NamedTuple):
  """N paths of several w₀, and the network calls and seconds that they took."""

  images: np.ndarray  # uint8 (N, K, H, W, C), for each of W
  labels: np.ndarray
  log_weights: np.ndarray  # (N, K), each from its own w₀
  source: np.ndarray  # (N,), its w₀'s place in W
  seconds: float

  @property
  def calls(self) -> int:
    """Two a step."""
    return 2 * len(LAM) * len(self.labels)

  def weights(self, k: int) -> np.ndarray:
    """What each counts for at W[k], (N,): every class for as much, as in a direct run."""
    weights = np.exp(reweight.mixed(self.log_weights, self.source)[:, k])
    return in_turn(weights, self.labels)

  def effective(self) -> np.ndarray:
    """The effective sample size at each of W."""
    return np.array([metrics.effective(self.weights(k)) for k in range(len(W))])


def in_turn(weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Weights of mean 1, of which each class has as much, however many of its images there are."""
  each = len(labels) / len(np.unique(labels))
  return each * weights / np.bincount(labels, weights)[labels]


def load() -> explore.Model:
  """The model of the package and its sampler, for direct runs."""
  lambdas = ','.join(f'{x:.9g}' for x in LAM)
  named = ('name=ddpm', f'v={V}', 'grid=listed', f'num_steps={len(LAM)}', f'lambdas={lambdas}')
  return explore.load_pretrained('digits', *(f'sample.sampler.{x}' for x in named))


def path_drawer(model: explore.Model) -> Callable:
  """(params, indices (B,), labels (B,), w₀ (B,)) → uint8 (B, K, H, W, C), log weights (B, K)."""
  network, mesh = unet.of(model.config), sharding.data_mesh()
  settings = samplers.settings_of(model.config.sample.sampler)
  del settings['sampler']

  def draw(params, indices, labels, w0):
    eps_fn = unet.eps_fn(network, params['network'])
    pair = pairs.null(eps_fn, conditioning.given(labels))
    keys, w = drawing.sample_keys(PATHS_SEED, indices), jnp.asarray(W)
    found = reweight.draw(pair, keys, network.image_shape, jnp.asarray(LAM), w, w0=w0, **settings)
    return drawing.to_uint8(found.x), found.log_weights

  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  return jax.jit(draw, in_shardings=(everywhere, split, split, split), out_shardings=(split, split))


class Drawn:
  """What is drawn of a model, in a folder: each set of images a file, drawn where it is lacking."""

  def __init__(self, folder: Path):
    """Loads the model; it is compiled where it is needed."""
    self._folder, self._model = folder, load()
    self._classes = registry.of(self._model.config.data).num_classes
    self._paths, self._warm = path_drawer(self._model), set()

  def paths(self, starts: Sequence[int]) -> Paths:
    """CHUNK paths of each of the w₀ = W[k] for k in starts, of noises of their own."""
    found = [
      self._of(f'paths/{i:02d}-w0={W[k]:g}', self._chunk, i, k) for i, k in enumerate(starts)
    ]
    images, labels, log_w = (
      np.concatenate([x[n] for x in found]) for n in ('images', 'c', 'log_w')
    )
    seconds = float(sum(x['seconds'] for x in found))
    return Paths(images, labels, np.float64(log_w), np.repeat(starts, CHUNK), seconds)

  def direct(self, w: float, seed: int, n: int) -> dict[str, np.ndarray]:
    """Images, classes c and seconds of n samples at w."""
    return self._of(f'direct/w={w:g}-seed={seed}-n={n}', self._direct, w, seed, n)

  def _of(self, name, make, *given):
    path = self._folder / f'{name}.npz'
    if not path.exists():
      arrays = make(*given)
      with files.atomic(path) as file:
        np.savez(file, **arrays)
    with np.load(path, allow_pickle=False) as file:
      return dict(file)

  def _chunk(self, i, k):
    def call(indices, c):
      return self._paths(self._model.params, indices, c, np.full(len(c), W[k], np.float32))

    drawn, c, seconds = self._in_batches('paths', call, CHUNK, i * CHUNK)
    return {'images': drawn[0], 'log_w': drawn[1], 'c': c, 'seconds': seconds}

  def _direct(self, w, seed, n):
    def call(indices, c):
      knobs = drawing.knobs(self._model.config, np.full(len(c), w, np.float32))
      return (self._model.draw(self._model.params, indices, c, knobs, np.uint32(seed)),)

    drawn, c, seconds = self._in_batches('direct', call, n, 0)
    return {'images': drawn[0], 'c': c, 'seconds': seconds}

  def _in_batches(self, what, call, n, first):
    """(arrays, classes, seconds without compiling) of samples first … first + n."""
    out, size = [], -(-BATCH // jax.device_count()) * jax.device_count()
    indices = np.arange(first, first + n, dtype=np.int32)
    c = kinds.choose('balanced', 0, indices, self._classes)
    if what not in self._warm:
      jax.block_until_ready(call(*(np.resize(x, size) for x in (indices, c))))
      self._warm.add(what)
    begin = time.monotonic()
    for start in range(0, n, size):
      rows = np.resize(np.arange(start, min(start + size, n)), size)  # one program serves all
      out.append([np.asarray(x)[: n - start] for x in call(indices[rows], c[rows])])
    return [np.concatenate(x) for x in zip(*out)], c, time.monotonic() - begin


def choose(drawn: Drawn, least: float) -> tuple[list[int], Paths]:
  """Draws paths where they are fewest, until every w has as many effective ones: (w₀s, paths).

  First at the middle of W, then at the w of the least effective sample size.
  """
  starts = [len(W) // 2]
  while True:
    paths = drawn.paths(starts)
    effective = paths.effective()
    at = int(np.argmin(effective))
    print(f'{len(paths.labels)} paths: {effective[at]:.0f} effective at w = {W[at]:g}', flush=True)
    if effective[at] >= least:
      return starts, paths
    starts.append(at)


def curve(paths: Paths, extractor: Extractor, reference: Reference, n: int) -> list[Score]:
  """The scores at each of W, as of n images."""
  found, progress = [], Progress('weighted curves', len(W), unit='w')
  for k in range(len(W)):
    weights = paths.weights(k)
    kept = weights > NEGLIGIBLE
    images, labels = paths.images[kept, k], paths.labels[kept]
    found.append(score(images, labels, weights[kept], extractor, reference, n))
    progress.update()
  progress.done()
  return found


def score(
  images: np.ndarray,
  labels: np.ndarray,
  weights: np.ndarray,
  extractor: Extractor,
  reference: Reference,
  n: int,
) -> Score:
  """FD and IS, of one part, of images that count for their weights, as of n images.

  Both are biased by about 1/n. So they are read off the line through those of all images and those
  of halves, which is what makes sets of different size alike; n may not be below a half.
  """
  found = features.stream([images], extractor)
  rows, probs = found.kept, found.probs

  def of(part):
    w = in_turn(weights[part], labels[part])
    moments = metrics.weighted_moments(rows[part], w)
    distance = metrics.frechet_distance(*moments, reference.mean, reference.cov)
    is_, _ = metrics.inception_score(probs[part], 1, None, w)
    return w, moments, np.array([distance, is_]), metrics.effective(w)

  w, moments, whole, effective = of(np.arange(len(labels)))
  values = whole
  if effective > n:
    turn = np.zeros(len(labels), int)
    for c in np.unique(labels):
      own = np.flatnonzero(labels == c)
      turn[own] = np.arange(len(own)) % 2
    halves = [of(np.flatnonzero(turn == i)) for i in (0, 1)]
    inverse = np.mean([1 / half[3] for half in halves])
    slope = (np.mean([half[2] for half in halves], axis=0) - whole) / (inverse - 1 / effective)
    values = whole + slope * (1 / n - 1 / effective)
  influences = (
    errors.frechet(rows, *moments, reference.mean, reference.cov),
    errors.whole_inception_score(probs, w),
  )
  spread = [errors.standard_error(x, effective, labels, w) for x in influences]
  return Score(dict(zip((FD, IS), zip(values.tolist(), spread))), effective)
