"""What a long run tells of itself: metrics, pictures, and on demand a profile."""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tensorboardX

from cfg_jax.core import config as config_lib
from cfg_jax.core import processes, sharding
from cfg_jax.generate import draw as generate
from cfg_jax.plan import devices, run_costs


def by_quarter(
  losses: jax.Array, lam: jax.Array, lambda_min: float, lambda_max: float
) -> dict[str, jax.Array]:
  """The sum of the losses (B,) in each quarter of [λ_min, λ_max], and how many there are: (4,).

  Quarter k = 1..4 is λ_min + (k−1)/4 (λ_max−λ_min) ≤ λ < λ_min + k/4 (λ_max−λ_min), the last one
  with its end: the first is almost noise, the last almost the image.
  """
  place = jnp.floor(4 * (lam - lambda_min) / (lambda_max - lambda_min))
  is_in = jnp.clip(place, 0, 3) == jnp.arange(4)[:, None]  # (4, B)
  return {'sums': jnp.where(is_in, losses, 0).sum(1), 'counts': is_in.sum(1)}


def peak_images_per_s(config: ml_collections.ConfigDict) -> float | None:
  """Images/s at which training would take all the devices' published peak; None if there is none.

  Of the model's own FLOPs, as `run_costs` counts them: what remat repeats is not work done.
  """
  device = devices.of_kind(jax.devices()[0].device_kind)
  try:
    peak = device and jax.device_count() * device.peak_flops(config.model.dtype)
  except ValueError:  # it has no such units
    return None
  return peak and peak / run_costs.train_flops(config, remat=False).compiler


class Log:
  """metrics.jsonl, one line per logged step, and TensorBoard; of several processes, the first's.

  Each line has, of the steps since the line before: the means of `loss` and `grad_norm`;
  `loss_quarter_1` to `_4`, the mean loss of all samples with λ in that quarter (see `by_quarter`),
  without the quarters that no λ fell in; `images_per_s`; `utilisation`, the share of the devices'
  published peak, where there is one; and `loader_wait`, the share of time spent waiting for data.
  """

  def __init__(self, workdir: Path, step: int, batch_size: int, peak_images_per_s: float | None):
    """Goes on after `step`: what an interrupted process logged beyond it is dropped."""
    self._file = self._board = None
    if processes.is_first():
      path = Path(workdir) / 'metrics.jsonl'
      lines = path.read_text().splitlines(keepends=True) if path.exists() else []
      kept = [line for line in lines if line.endswith('\n') and json.loads(line)['step'] <= step]
      config_lib.write_atomically(path, ''.join(kept))
      self._file = path.open('a')
      self._board = tensorboardX.SummaryWriter(str(Path(workdir) / 'tensorboard'), purge_step=step)
    self._batch_size, self._peak, self.loss = batch_size, peak_images_per_s, math.nan
    self._start_over()

  def _start_over(self):
    self._total, self._count, self._waited, self._since = None, 0, 0.0, time.monotonic()

  def wait_for(self, batches: Iterator[dict]) -> dict:
    """next(batches), and notes how long that took."""
    begin = time.monotonic()
    batch = next(batches)
    self._waited += time.monotonic() - begin
    return batch

  def add(self, step: int, metrics: dict[str, Any]) -> None:
    """Takes in one step's metrics; FloatingPointError, naming the step, if one is not finite."""
    metrics = jax.device_get(metrics)
    for name in ('loss', 'grad_norm'):
      if not math.isfinite(metrics[name]):
        raise FloatingPointError(
          f'{name} is {metrics[name]} at step {step}; nothing was saved since the last checkpoint. '
          'Try a lower train.learning_rate or a longer train.warmup_steps.'
        )
    self.loss = float(metrics['loss'])
    metrics = jax.tree.map(np.float64, metrics)
    self._total = jax.tree.map(np.add, self._total, metrics) if self._count else metrics
    self._count += 1

  def write(self, step: int) -> None:
    """Writes the line of `step`."""
    seconds = time.monotonic() - self._since
    line = {'step': step} | {k: float(self._total[k] / self._count) for k in ('loss', 'grad_norm')}
    quarters = self._total['quarters']
    for k, (total, count) in enumerate(zip(quarters['sums'], quarters['counts']), start=1):
      if count:
        line[f'loss_quarter_{k}'] = float(total / count)
    line['images_per_s'] = self._count * self._batch_size / seconds
    if self._peak:
      line['utilisation'] = line['images_per_s'] / self._peak
    line['loader_wait'] = self._waited / seconds
    if self._file:
      self._file.write(json.dumps(line) + '\n')
      self._file.flush()
      for name, value in line.items():
        if name != 'step':
          self._board.add_scalar(name, value, step)
    self._start_over()

  def picture(self, name: str, step: int, image: np.ndarray) -> None:
    """Shows an image, uint8 (H, W, C), in TensorBoard."""
    if self._board:
      self._board.add_image(name, image, step, dataformats='HWC')

  def close(self) -> None:
    """Closes both files."""
    if self._file:
      self._file.close()
      self._board.close()


def make_grid(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> Callable[[Any], np.ndarray]:
  """ema → a grid of samples, uint8 (8 H, 4 W, C) at most: rows = classes and noises, columns = w.

  Of config.sample's w four are shown, both ends among them (w = 0 alone where ∅ is not trained),
  and of the classes eight: the same ones, from the same noise, whenever it is called. All processes
  call it, and all get the grid.
  """
  dataset, strengths = config_lib.dataset_of(config), config.sample.w
  if config.train.p_uncond == 0:
    strengths = (0.0,)
  strengths = [strengths[i] for i in _spread(len(strengths), 4)]
  classes = _spread(dataset.num_classes, 8)
  cells = [(row, c, w) for row, c in enumerate(classes) for w in strengths]
  filled = cells + cells[-1:] * (-len(cells) % mesh.size)
  indices, c, w = map(np.array, zip(*filled))
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  arguments = [
    sharding.from_whole(x, split)
    for x in (indices.astype(np.int32), c.astype(np.int32), w.astype(np.float32))
  ]
  draw = generate.make_sampler(config, mesh)

  def grid(ema):
    images = sharding.whole(draw(jax.device_put(ema, everywhere), *arguments))[: len(cells)]
    height, width, channels = dataset.image_shape
    images = images.reshape(len(classes), len(strengths), height, width, channels)
    return images.swapaxes(1, 2).reshape(len(classes) * height, len(strengths) * width, channels)

  return grid


def _spread(n: int, most: int) -> list[int]:
  """At most `most` of 0..n−1, evenly spread, both ends among them."""
  return sorted(set(np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()))


class ProfileSignal:
  """While entered, SIGUSR1 has the next ten steps traced by `jax.profiler`, for TensorBoard.

  Of several processes each traces its own devices, when it is told itself.
  """

  NUM_STEPS = 10

  def __init__(self, workdir: Path):
    """The trace goes to workdir/tensorboard/plugins/profile."""
    self._folder = Path(workdir) / 'tensorboard'
    self._asked, self._left = False, 0

  def __enter__(self):
    """Takes over the signal."""
    self._previous = signal.signal(signal.SIGUSR1, self._note)
    return self

  def _note(self, signum, frame):
    del signum, frame
    self._asked = True

  def before_step(self, state: Any) -> None:
    """Begins or ends a trace, if it is time; state: what the last step gave, to be waited for."""
    if self._left:
      self._left -= 1
      if not self._left:
        self._stop(state)
    elif self._asked:
      self._asked, self._left = False, self.NUM_STEPS
      jax.profiler.start_trace(self._folder)

  def _stop(self, state):
    jax.block_until_ready(state)
    jax.profiler.stop_trace()
    print(f'Profiled {self.NUM_STEPS} steps: tensorboard --logdir {self._folder}', flush=True)

  def __exit__(self, *error):
    """Gives the signal back, and ends a trace that is on."""
    signal.signal(signal.SIGUSR1, self._previous)
    if self._left:
      jax.profiler.stop_trace()
