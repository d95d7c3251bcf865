"""checkpoint → samples: Algorithm 2, for every w of a list, in files that a restart does not redo.

  python -m cfg_jax.generate --workdir runs/digits/p_uncond=0.1 [--sample.w=0,1 --sample.num_steps=64]

Settings not given are the run's own `config.sample`.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from PIL import Image

from cfg_jax import config as config_lib
from cfg_jax import guidance, sampling, sharding, train_state
from cfg_jax.checkpoint import Checkpoints
from cfg_jax.progress import Progress
from cfg_jax.samples import SampleSet


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


def generate(config: ml_collections.ConfigDict, workdir: Path, step: int | None = None) -> int:
  """Draws what is missing of config.sample from the newest whole checkpoint (or that of `step`).

  Returns the checkpoint's step. Raises ValueError where the config is wrong or there is no whole
  checkpoint. Beside the sets it leaves grid.png, rows = classes and columns = w, from one noise.
  """
  config_lib.validate(config, jax.device_count())
  mesh = sharding.data_mesh()
  step, params = load_params(config, workdir, step, mesh)
  sets = sample_sets(config, step)
  n, batch_size = config.sample.num_samples, config.sample.batch_size
  missing = [(s, sorted(set(range(n)) - s.present(workdir))) for s in sets]
  todo = [
    (s, run[k : k + batch_size])
    for s, indices in missing
    for run in _runs(indices)
    for k in range(0, len(run), batch_size)
  ]
  if not todo:
    return step

  draw = make_sampler(config, mesh)
  split = sharding.batch(mesh)
  num_classes = config_lib.dataset_of(config).num_classes
  progress = Progress(
    f'generate {Path(workdir).name}',
    n * len(sets),
    n * len(sets) - sum(len(i) for _, i in missing),
    'images',
  )

  def start(sample_set, indices):  # a short batch is filled up, so that one program serves all
    indices = np.arange(indices[0], indices[0] + batch_size)
    c = labels_of(config.sample.labels, config.sample.seed, indices, num_classes)
    w = np.full(batch_size, sample_set.w, np.float32)
    arguments = jax.device_put((indices.astype(np.int32), c, w), split)
    return draw(params, *arguments), c

  for sample_set, indices in todo:
    images, c = start(sample_set, indices)
    images = np.asarray(images)[: len(indices)]
    sample_set.write(workdir, indices[0], images, c[: len(indices)])
    progress.update(len(indices), f'w={sample_set.w:g}')
  progress.done()
  write_grid(sets, workdir, n, num_classes)
  return step


def load_params(
  config: ml_collections.ConfigDict, workdir: Path, step: int | None, mesh: jax.sharding.Mesh
) -> tuple[int, dict]:
  """(step, parameters) of a checkpoint: the newest whole one, or that of `step`; EMA as config says."""
  network = config_lib.network_of(config)
  create = functools.partial(train_state.create_params, network, config.seed)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.replicated(mesh)),
    jax.eval_shape(create),
  )
  name = 'ema' if config.sample.ema else 'params'
  checkpoints = Checkpoints(workdir)
  restored = checkpoints.restore(
    {
      'step': jax.ShapeDtypeStruct((), jnp.int32, sharding=sharding.replicated(mesh)),
      name: abstract,
    },
    step,
  )
  checkpoints.close()
  if restored is None:
    raise ValueError(f'{workdir} has no checkpoint: train first.')
  return int(restored[0]['step']), restored[0][name]


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
  image.save(Path(workdir) / Path(sets[0].path).parent / 'grid.png')


def _runs(indices: list[int]) -> list[list[int]]:
  """Splits increasing integers into runs of consecutive ones."""
  if not indices:
    return []
  cuts = [k for k in range(1, len(indices)) if indices[k] != indices[k - 1] + 1]
  return [indices[a:b] for a, b in zip([0, *cuts], [*cuts, len(indices)])]
