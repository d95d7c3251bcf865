"""checkpoint → samples: Algorithm 2 for every w of a list, in files that a restart keeps."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import files, memory, pictures, processes, sharding
from cfg_jax.core.checkpoint import restore_params
from cfg_jax.core.progress import Progress
from cfg_jax.data import kinds, registry
from cfg_jax.data.names import class_names, named
from cfg_jax.equations import samplers
from cfg_jax.equations.guidance import rules
from cfg_jax.generate.store import SampleSet, sample_sets
from cfg_jax.generate.upgrade import upgrade
from cfg_jax.methods import drawing, guides, owners

GRID_ROWS = 10  # of grid.png, at most
SHARED = ''  # in place of a set's path: the steps that all share


def generate(
  config: ml_collections.ConfigDict,
  workdir: Path,
  step: int | None = None,
  indices: Sequence[int] | None = None,
) -> int:
  """Draws what is missing of config.sample from the newest intact checkpoint (or that of `step`).

  indices: those of each set that are drawn here, by default all; other jobs may draw others.
  Returns the checkpoint's step. Raises UserError where the config is wrong or there is no intact
  checkpoint. Beside complete sets it leaves grid.png: rows = classes, columns = w, from one noise.
  Of several processes (see `processes`), each draws a share of the images on its own devices.
  """
  config_lib.check(config, owners.OWNERS, jax.device_count())
  drawing.check_guidance(config, config.sample.guidance.w)
  config_lib.check_unchanged(config, Path(workdir) / 'config.json')
  if processes.is_first():
    upgrade(workdir)
  mesh = sharding.data_mesh(jax.local_devices())
  step, params = load_params(config, workdir, step, mesh)
  sets = sample_sets(config.sample, step)
  n = config.sample.num_samples
  wanted = set(range(n) if indices is None else indices)
  missing = [(s, i) for s in sets for i in sorted(wanted - s.present(workdir))]
  processes.barrier('all have seen what is missing')
  if share := _share(missing, drawing.shared_steps(config)):
    total = len(wanted) * len(sets) - len(missing) + len(share)
    _draw(config, workdir, share, params, mesh, total)
  processes.barrier('all is drawn')
  if config.sample.sampler.name in samplers.PARTICLES and processes.is_first():
    for sample_set in sets:
      if sample_set.present(workdir):
        print(_told(sample_set, sample_set.beside(workdir, 'effective', n)), flush=True)
  complete = indices is None and (missing or not pictures.is_whole(grid_path(sets, workdir)))
  if complete and processes.is_first():
    names = class_names(config.data.name, config.data.dir)
    write_grid(sets, workdir, n, registry.of(config.data).num_classes, names)
  return step


def _share(missing, shared):
  """What this process draws of the missing; where w share steps, all sets of some images."""
  if not shared:
    return processes.share(missing)
  own = set(processes.share(sorted({i for _, i in missing})))
  return [item for item in missing if item[1] in own]


def _draw(config, workdir, missing, params, mesh, total):
  """Draws and writes the missing (set, index) pairs, in batches that may mix sets.

  Steps that all w share are computed once for a batch of indices, of which all sets then go on.
  """
  batch_size = images_at_once(config.sample, jax.device_count()) * mesh.size // jax.device_count()
  num_classes = registry.of(config.data).num_classes
  split, seed = sharding.batch(mesh), np.uint32(config.sample.seed)
  if shared := drawing.shared_steps(config):
    begin, draw = drawing.make_shared(config, mesh)
  else:
    draw = drawing.make_sampler(config, mesh, beside=True)
  progress = Progress(
    f'generate {Path(workdir).name}',
    total,
    total - len(missing),
    'images',
    silent=not processes.is_first(),
    compiles=True,
  )

  def placed(*arrays):
    return jax.device_put(arrays, split)

  def filled(values, dtype):  # the last batch is filled up, so that one program serves all
    return np.array(values + values[-1:] * (batch_size - len(values)), dtype)

  def samples(indices):
    indices = filled(indices, np.int32)
    return indices, kinds.choose(config.sample.labels, config.sample.seed, indices, num_classes)

  def started():
    """Starts one computation after another: (whose images, arrays, what to do with them)."""
    for chunk in _chunks(missing, batch_size) if shared else [missing]:
      if shared:
        own = sorted({i for _, i in chunk})
        carry = begin(params, *placed(*samples(own)), seed)
        yield [SHARED] * len(own), carry, None
      unguided, guided = [], []  # by themselves: the unguided skip the ∅ half
      for item in chunk:
        (unguided if rules.unguided({'w': item[0].w}) else guided).append(item)
      for items in (unguided, guided):
        for k in range(0, len(items), batch_size):
          batch = items[k : k + batch_size]
          indices, c = samples([i for _, i in batch])
          knobs = drawing.knobs(config, filled([s.w for s, _ in batch], np.float32))
          more = (carry, *placed(np.searchsorted(own, indices))) if shared else ()
          drawn = draw(params, *placed(indices, c, knobs), seed, *more)
          yield [s.path for s, _ in batch], drawn, functools.partial(write, batch, c)

  def write(batch, c, drawn):
    (images, beside), first = jax.tree.map(np.asarray, drawn), 0
    for stop in range(1, len(batch) + 1):  # one file for each run of consecutive indices of a set
      (before, i), after = batch[stop - 1], batch[stop : stop + 1]
      if after != [(before, i + 1)]:
        rows = slice(first, stop)
        of_images = {name: x[rows] for name, x in beside.items()}
        before.write(workdir, batch[first][1], images[rows], c[rows], of_images)
        first = stop
    progress.update(len(batch), f'w={batch[-1][0].w:g}')

  last, spent = None, {}  # path → [images, seconds], but for the batch that was compiled

  def finish(paths, arrays, then):
    nonlocal last
    jax.block_until_ready(arrays)
    now = time.monotonic()
    if last is not None:
      for path in paths:
        of_set = spent.setdefault(path, [0, 0.0])
        of_set[0] += 1
        of_set[1] += (now - last) / len(paths)
    last = now
    if then:
      then(arrays)

  running = None
  for computed in started():
    if running:  # written while the devices are at the next batch
      finish(*running)
    running = computed
  finish(*running)
  progress.done()
  if shared and SHARED not in spent:  # they were computed once, while others were compiled
    return
  count, seconds = spent.pop(SHARED, (1, 0.0))
  each = seconds / count  # which an image takes, whatever it shares them with
  for path, (count, seconds) in spent.items():
    speed = {'seconds_per_image': each + seconds / count, 'images': count, 'devices': mesh.size}
    speed['device'] = jax.local_devices()[0].device_kind
    files.write_json(Path(workdir) / path / 'speed.json', speed)


def _chunks(missing, size):
  """The missing pairs, those of so many indices together."""
  place = {i: k // size for k, i in enumerate(sorted({i for _, i in missing}))}
  chunks = [[] for _ in range(-(-len(place) // size))]
  for item in missing:
    chunks[place[item[1]]].append(item)
  return chunks


def _told(sample_set, effective):
  """The effective sample sizes of a set's images (m, T − 1), in a line."""
  k = sample_set.settings['sample']['sampler']['particles']
  return (
    f'w={sample_set.w:g}: of {k} particles, effective after a step: least {effective.min():.2f}, '
    f'mean {effective.mean():.2f}; of {len(effective)} images.'
  )


def images_at_once(sample: ml_collections.ConfigDict, num_devices: int) -> int:
  """The size of the batches that all images are drawn in, by one program.

  A set is cut into as few equal batches of at most sample.batch_size as can be, so that no more
  images are computed than are asked for, but for a multiple of num_devices: with 512, a set of 16
  takes a batch of 16, and one of 600 two of 300. The size depends on what is asked for, and not on
  what is missing: what was stopped goes on to the same bits. Each of K particles counts as one.
  """
  n = sample.num_samples
  batches = -(-n // max(1, sample.batch_size // samplers.particles(sample.sampler)))
  return -(-n // (batches * num_devices)) * num_devices


def load_params(
  config: ml_collections.ConfigDict, workdir: Path, step: int | None, mesh: jax.sharding.Mesh
) -> tuple[int, dict]:
  """(step, parameters) of the newest intact checkpoint, or of `step`; EMA as config says.

  A guide's are among them.
  """
  params, sample = methods.abstract_params(config, mesh), config.sample
  memory.check(
    params,
    images_at_once(sample, jax.device_count())
    * samplers.particles(sample.sampler)
    // jax.process_count(),
    registry.of(config.data).image_shape,
    config.model.channels,
    f'sample.batch_size={sample.batch_size}',
  )
  name = 'ema' if sample.ema else 'params'
  step, params = restore_params(params, workdir, step, mesh, name)
  return step, params | guides.load(config, mesh)


def grid_path(sets: Sequence[SampleSet], workdir: Path) -> Path:
  """Where the grid of sets that differ in w alone lies."""
  return Path(workdir) / Path(sets[0].path).parent / 'grid.png'


def write_grid(
  sets: Sequence[SampleSet], workdir: Path, n: int, num_classes: int, names: Sequence[str] = ()
) -> None:
  """grid.png beside the sets: rows = the first image of up to ten classes, columns = w.

  Where all images are of one class, rows = the first ten. names: of the classes; their numbers
  where there are none.
  """
  columns, rows = [], []
  for sample_set in sets:
    one_class, first = sample_set.settings['sample']['labels'].isdecimal(), {}
    for images, labels in sample_set.read(workdir, n):
      for image, label in zip(images, labels):
        first.setdefault(len(first) if one_class else int(label), image)
      if len(first) >= (GRID_ROWS if one_class else num_classes):
        break
    shown = sorted(first)[:GRID_ROWS]
    columns.append(np.stack([first[row] for row in shown]))
    rows = [f'image {row}' if one_class else named(row, list(names)) for row in shown]
  strengths = [f'{"w = " if k == 0 else ""}{s.w:g}' for k, s in enumerate(sets)]
  images = pictures.enlarge(np.stack(columns, axis=1), 32)
  grid = pictures.labelled(images, rows, strengths, gap=2)
  with files.atomic(grid_path(sets, workdir)) as file:
    file.write(pictures.png(grid))
