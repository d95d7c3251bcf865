"""checkpoint → samples: Algorithm 2 for every w of a list, in files that a restart keeps."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from PIL import Image

from cfg_jax.core import config as config_lib
from cfg_jax.core import processes, sharding
from cfg_jax.core import state as train_state
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.core.progress import Progress
from cfg_jax.equations import guidance
from cfg_jax.equations import samplers as sampling
from cfg_jax.generate.store import SampleSet


def sample_keys(seed: int, indices: jax.Array) -> jax.Array:
  """The key of each sample, a function of seed and its index alone. (B,) → (B,)."""
  return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(indices)


def labels_of(mode: str, seed: int, indices: np.ndarray, num_classes: int) -> np.ndarray:
  """The class of each sample: 'balanced' is index mod num_classes, 'random' uniform, or one class.

  indices: (B,). Returns int32 (B,). The paper does not say how it draws classes.
  """
  if mode == 'balanced':
    return (indices % num_classes).astype(np.int32)
  if mode == 'random':
    # Philox is counter-based: index i's draw costs the same wherever it starts.
    draws = [
      np.random.Generator(np.random.Philox(key=[seed, i])).integers(num_classes) for i in indices
    ]
    return np.array(draws, np.int32)
  return np.full(len(indices), int(mode), np.int32)


def make_sampler(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Callable:
  """The jitted sampler (params, indices, c, w) → uint8 (B, H, W, C), all arguments traced.

  indices, c: int32 (B,); w: float32 (B,). One compiled program serves every w; where all w are 0 it
  skips the ∅ half.
  """
  network, sampler = config_lib.network_of(config), config.sample
  apply = train_state.apply_fn(network)

  def draw(params, indices, c, w):
    eps_fn = guidance.guide(functools.partial(apply, params), c, w, null_class=network.num_classes)
    x = sampling.sample(
      eps_fn,
      sample_keys(sampler.seed, indices),
      network.image_shape,
      num_steps=sampler.num_steps,
      v=sampler.v,
      lambda_min=config.diffusion.lambda_min,
      lambda_max=config.diffusion.lambda_max,
      clip_x=sampler.clip_x,
    )
    return to_uint8(x)

  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  return jax.jit(draw, in_shardings=(everywhere, split, split, split), out_shardings=split)


def to_uint8(x: jax.Array) -> jax.Array:
  """[−1, 1] to 0..255, rounded to nearest (truncation moves Inception features by 1e-3)."""
  return jnp.round(jnp.clip((x + 1) * 127.5, 0, 255)).astype(jnp.uint8)


def sample_sets(config: ml_collections.ConfigDict, step: int) -> list[SampleSet]:
  """One set for each w of config.sample, in its order."""
  s = config.sample
  return [
    SampleSet(step, s.ema, s.num_steps, s.v, s.clip_x, s.seed, s.labels, float(w)) for w in s.w
  ]


def generate(
  config: ml_collections.ConfigDict,
  workdir: Path,
  step: int | None = None,
  indices: Sequence[int] | None = None,
) -> int:
  """Draws what is missing of config.sample from the newest whole checkpoint (or that of `step`).

  indices: those of each set that are drawn here, by default all; other jobs may draw others.
  Returns the checkpoint's step. Raises ValueError where the config is wrong or there is no whole
  checkpoint. Beside whole sets it leaves grid.png, rows = classes and columns = w, from one noise.
  Of several processes (see `processes`), each draws a share of the images on its own devices.
  """
  config_lib.validate(config, jax.device_count())
  check_guidance(config, config.sample.w)
  mesh = sharding.data_mesh(jax.local_devices())
  step, params = load_params(config, workdir, step, mesh)
  sets = sample_sets(config, step)
  n = config.sample.num_samples
  wanted = set(range(n) if indices is None else indices)
  missing = [(s, i) for s in sets for i in sorted(wanted - s.present(workdir))]
  processes.wait('all have seen what is missing')
  if share := processes.share(missing):
    total = len(wanted) * len(sets) - len(missing) + len(share)
    _draw(config, workdir, share, params, mesh, total)
  processes.wait('all is drawn')
  whole = indices is None and (missing or not grid_path(sets, workdir).exists())
  if whole and processes.is_first():
    write_grid(sets, workdir, n, config_lib.dataset_of(config).num_classes)
  return step


def check_guidance(config: ml_collections.ConfigDict, w: Sequence[float]) -> None:
  """Raises ValueError where one of w needs ∅, and the network has never seen it."""
  if config.train.p_uncond == 0 and any(w):
    raise ValueError(
      f'sample.w={tuple(w)} guides with ∅, which this network has never seen '
      '(train.p_uncond=0): use --w 0.'
    )


def _draw(config, workdir, missing, params, mesh, total):
  """Draws and writes the missing (set, index) pairs, in full batches that may mix sets."""
  batch_size = config.sample.batch_size * mesh.size // jax.device_count()
  num_classes = config_lib.dataset_of(config).num_classes
  draw, split = make_sampler(config, mesh), sharding.batch(mesh)
  progress = Progress(
    f'generate {Path(workdir).name}',
    total,
    total - len(missing),
    'images',
    silent=not processes.is_first(),
  )

  def start(batch):  # a short batch is filled up, so that one program serves all
    filled = batch + [batch[-1]] * (batch_size - len(batch))
    indices = np.array([i for _, i in filled], np.int32)
    w = np.array([s.w for s, _ in filled], np.float32)
    c = labels_of(config.sample.labels, config.sample.seed, indices, num_classes)
    return batch, c, draw(params, *jax.device_put((indices, c, w), split))

  def finish(batch, c, images):
    images, first = np.asarray(images), 0
    for stop in range(1, len(batch) + 1):  # one file for each run of consecutive indices of a set
      (before, i), after = batch[stop - 1], batch[stop : stop + 1]
      if after != [(before, i + 1)]:
        before.write(workdir, batch[first][1], images[first:stop], c[first:stop])
        first = stop
    progress.update(len(batch), f'w={batch[-1][0].w:g}')

  unguided = [(s, i) for s, i in missing if s.w == 0]  # by themselves: they skip the ∅ half
  guided = [(s, i) for s, i in missing if s.w != 0]
  running = None
  for items in (unguided, guided):
    for k in range(0, len(items), batch_size):
      started = start(items[k : k + batch_size])
      if running:  # written while the devices are at the next batch
        finish(*running)
      running = started
  finish(*running)
  progress.done()


def load_params(
  config: ml_collections.ConfigDict, workdir: Path, step: int | None, mesh: jax.sharding.Mesh
) -> tuple[int, dict]:
  """(step, parameters) of the newest whole checkpoint, or of `step`; EMA as config says."""
  network = config_lib.network_of(config)
  params = jax.eval_shape(functools.partial(train_state.create_params, network, config.seed))
  name = 'ema' if config.sample.ema else 'params'
  wanted = {'step': jax.ShapeDtypeStruct((), jnp.int32), name: params}
  checkpoints = Checkpoints(workdir)
  restored = checkpoints.restore(sharding.abstract(wanted, sharding.replicated(mesh)), step)
  checkpoints.close()
  if restored is None:
    raise ValueError(f'{workdir} has no checkpoint: train first.')
  return int(restored[0]['step']), restored[0][name]


def grid_path(sets: Sequence[SampleSet], workdir: Path) -> Path:
  """Where the grid of sets that differ in w alone lies."""
  return Path(workdir) / Path(sets[0].path).parent / 'grid.png'


def write_grid(sets: Sequence[SampleSet], workdir: Path, n: int, num_classes: int) -> None:
  """grid.png beside the sets: rows = the first image of up to ten classes, columns = w."""
  columns = []
  for sample_set in sets:
    first = {}
    for images, labels in sample_set.read(workdir, n):
      for image, label in zip(images, labels):
        first.setdefault(int(label), image)
      if len(first) == num_classes:
        break
    columns.append(np.concatenate([first[label] for label in sorted(first)[:10]], axis=0))
  grid = np.concatenate(columns, axis=1)
  scale = max(1, 32 // (grid.shape[1] // len(columns)))  # small images, legible
  grid = grid.repeat(scale, axis=0).repeat(scale, axis=1)
  image = Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
  image.save(grid_path(sets, workdir))
