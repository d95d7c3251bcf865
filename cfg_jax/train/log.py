"""What a long run tells of itself: metrics and pictures."""

import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from cfg_jax.core import files, pictures, processes, sharding
from cfg_jax.core.errors import UserError
from cfg_jax.core.state import Mean
from cfg_jax.data import registry
from cfg_jax.data.names import class_names, named
from cfg_jax.methods import drawing


class Log:
  """metrics.jsonl, one line per logged step, and TensorBoard; of several processes, the first's.

  Each line has, of the steps since the line before, the mean of every metric of the method (those
  with a count of 0 are left out); `images_per_s`; `utilisation`, the share of the devices'
  published peak, where there is one; and `loader_wait`, the share of time spent waiting for data.
  The step that was compiled is in no rate.
  """

  def __init__(self, workdir: Path, step: int, batch_size: int, peak_images_per_s: float | None):
    """Goes on after `step`: what an interrupted process logged beyond it is dropped."""
    self._file, self._step = None, step
    self._folder = Path(workdir) / 'tensorboard'
    if processes.is_first():
      path = Path(workdir) / 'metrics.jsonl'
      lines, damaged = files.read_log(path)
      steps = [line.get('step') for line in lines]
      if damaged or not all(isinstance(n, int) for n in steps):
        aside = path.with_name('metrics.damaged.jsonl')
        path.replace(aside)
        print(f'{path} was damaged: it is {aside.name} now, and goes on with what could be read.')
      kept = [line for line, n in zip(lines, steps) if isinstance(n, int) and n <= step]
      files.write_text(path, files.json_lines(kept))
      self._file = path.open('a')
    self._batch_size, self._peak, self.note = batch_size, peak_images_per_s, ''
    self._start_over()

  @functools.cached_property
  def _board(self):
    import tensorboardX  # here, not before the first step: seconds, where PyTorch is installed

    return tensorboardX.SummaryWriter(str(self._folder), purge_step=self._step)

  def _start_over(self):
    self._total, self._count = None, 0
    self._waited, self._since, self._untimed = 0.0, time.monotonic(), 0

  def start_clock(self) -> None:
    """Leaves what was so far, a step and its compilation, out of the next line's rates."""
    self._waited, self._since, self._untimed = 0.0, time.monotonic(), 1

  def wait_for(self, batches: Iterator[dict]) -> dict:
    """next(batches), and notes how long that took."""
    begin = time.monotonic()
    batch = next(batches)
    self._waited += time.monotonic() - begin
    return batch

  def add(self, step: int, metrics: dict[str, Mean]) -> None:
    """Takes in one step's metrics; UserError, naming the step, if one is not finite."""
    metrics = jax.tree.map(np.float64, jax.device_get(metrics))
    for name, metric in metrics.items():
      if not math.isfinite(metric.total):
        raise UserError(
          f'{name} is {metric.total} at step {step}; nothing was saved since the last checkpoint. '
          'Try a lower train.learning_rate or a longer train.warmup_steps.'
        )
    if 'loss' in metrics:
      self.note = f'loss {metrics["loss"].total / metrics["loss"].count:.3f}'
    self._total = jax.tree.map(np.add, self._total, metrics) if self._count else metrics
    self._count += 1

  def write(self, step: int) -> None:
    """Writes the line of `step`."""
    seconds = time.monotonic() - self._since
    line = {'step': step}
    line |= {k: float(m.total / m.count) for k, m in self._total.items() if m.count}
    if timed := self._count - self._untimed:
      line['images_per_s'] = timed * self._batch_size / seconds
      if self._peak:
        line['utilisation'] = line['images_per_s'] / self._peak
      line['loader_wait'] = self._waited / seconds
    if self._file:
      self._file.write(files.json_lines([line]))
      self._file.flush()
      for name, value in line.items():
        if name != 'step':
          self._board.add_scalar(name, value, step)
    self._start_over()

  def picture(self, name: str, step: int, image: np.ndarray) -> None:
    """Shows an image, uint8 (H, W, C), in TensorBoard."""
    if self._file:
      self._board.add_image(name, image, step, dataformats='HWC')

  def close(self) -> None:
    """Closes both files."""
    if self._file:
      self._file.close()
    if '_board' in self.__dict__:  # once something was written
      self._board.close()


def make_grid(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> Callable[[Any], np.ndarray]:
  """ema → a grid of samples, uint8 (H', W', C): rows = classes and noises, columns = w, with names.

  Of config.sample's w that the network was trained for four are shown, both ends among them, and of
  the classes eight: the same ones, from the same noise, whenever it is called. All processes call
  it, and all get the grid.
  """
  dataset, strengths = registry.of(config.data), config.sample.guidance.w
  unguided = -1.0 if config.method.p_uncond == 1 else 0.0
  strengths = [w for w in strengths if drawing.can_draw(config, w)] or [unguided]
  strengths = [strengths[i] for i in _spread(len(strengths), 4)]
  classes = _spread(dataset.num_classes, 8)
  names = class_names(config.data.name, config.data.dir)
  rows = [named(c, names) for c in classes]
  cells = [(row, c, w) for row, c in enumerate(classes) for w in strengths]
  filled = cells + cells[-1:] * (-len(cells) % mesh.size)
  indices, c, w = map(np.array, zip(*filled))
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  knobs = drawing.knobs(config, w)
  arguments = jax.tree.map(
    lambda x: sharding.place(x, split), (indices.astype(np.int32), c.astype(np.int32), knobs)
  )
  draw = drawing.make_sampler(config, mesh)

  def grid(ema):
    found = draw(jax.device_put(ema, everywhere), *arguments, np.uint32(config.sample.seed))
    images = sharding.gather(found)[: len(cells)]
    images = images.reshape(len(classes), len(strengths), *dataset.image_shape)
    heads = [f'w = {w:g}' for w in strengths]
    return pictures.labelled(pictures.enlarge(images, 32), rows, heads, gap=2)

  return grid


def _spread(n: int, most: int) -> list[int]:
  """At most `most` of 0..n−1, evenly spread, both ends among them."""
  return sorted(set(np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()))
