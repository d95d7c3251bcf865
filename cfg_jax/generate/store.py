"""Samples on disk: what settings make a set of them, where it lies, which images are there."""

import dataclasses
import zipfile
import zlib
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class SampleSet:
  """All samples of one checkpoint under the same settings, however many have been drawn so far.

  Image i of a set depends on the settings and i alone, so a set can grow, and sets that differ in w
  only share the noise and the labels of every i.
  """

  step: int
  ema: bool
  num_steps: int  # T
  v: float
  clip_x: bool
  seed: int
  labels: str
  w: float

  @property
  def path(self) -> str:
    """The folder, relative to the run: every setting is in its name."""
    weights = 'ema' if self.ema else 'raw'
    clip = 'clip' if self.clip_x else 'noclip'
    return (
      f'samples/step={self.step},{weights}/T={self.num_steps},v={self.v:g},{clip},'
      f'labels={self.labels},seed={self.seed}/w={self.w:g}'
    )

  def present(self, workdir: Path) -> set[int]:
    """The indices of the images on disk."""
    found = set()
    for file in self._files(workdir):
      first, stop = file.stem.split('-')
      found.update(range(int(first), int(stop)))
    return found

  def write(self, workdir: Path, first: int, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes images first, first + 1, …: uint8 (n, H, W, C), int32 (n,); all of them or none."""
    folder = Path(workdir) / self.path
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f'{first:08d}-{first + len(images):08d}.npz'
    part = file.with_suffix('.part')
    with part.open('wb') as f:
      indices = np.arange(first, first + len(images))
      np.savez_compressed(f, images=images, labels=labels, indices=indices)
    part.rename(file)

  def read(self, workdir: Path, n: int, batch_size: int = 500):
    """Yields (images, labels) of indices 0 … n − 1 in order, batch_size at a time.

    Batches do not depend on how the images came to lie in files: sums over them round alike.
    Raises ValueError where some are missing or a file is damaged.
    """
    held, done, yielded = [], 0, 0
    for images, labels in self._read_files(workdir, n):
      held.append((images, labels))
      done += len(images)
      while done - yielded >= batch_size or done == n > yielded:
        images, labels = (np.concatenate(parts) for parts in zip(*held))
        yield images[:batch_size], labels[:batch_size]
        held = [(images[batch_size:], labels[batch_size:])]
        yielded += len(images[:batch_size])
    if done < n:
      raise ValueError(f'{Path(workdir) / self.path} has {done} of {n} samples: generate the rest.')

  def _read_files(self, workdir, n):
    """What there is of (images, labels) 0 … n − 1 up to the first gap, a file at a time."""
    done = 0
    for file in self._files(workdir):
      if done == n or int(file.stem.split('-')[0]) > done:
        return  # what comes after a gap is not image `done`
      try:
        with np.load(file) as arrays:
          take = (arrays['indices'] >= done) & (arrays['indices'] < n)
          images, labels = arrays['images'][take], arrays['labels'][take]
      except (zipfile.BadZipFile, zlib.error, OSError, ValueError, LookupError) as error:
        raise ValueError(f'{file} is damaged ({error}): remove it and generate it again.') from None
      done += len(images)
      yield images, labels

  def _files(self, workdir):
    return sorted((Path(workdir) / self.path).glob('*-*.npz'))
