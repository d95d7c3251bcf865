"""Samples on disk: the one writer and reader of shards. Without JAX."""

import dataclasses
import functools
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cfg_jax.core import files, steps
from cfg_jax.core.errors import UserError
from cfg_jax.generate import identity


@dataclasses.dataclass(frozen=True)
class SampleSet:
  """All samples of one checkpoint under the same settings, however many have been drawn so far.

  Image i of a set depends on the settings and i alone, so a set can grow, and sets that differ in w
  only share the noise and the labels of every i. settings: see `identity.settings_of`.
  """

  settings: dict[str, Any]

  @property
  def w(self) -> float:
    """The guidance strength."""
    return self.settings['sample']['guidance']['w']

  @functools.cached_property
  def path(self) -> str:
    """The folder, relative to the run."""
    return identity.path(self.settings)

  def present(self, workdir: Path) -> set[int]:
    """The indices of the images on disk."""
    found = set()
    for file in _files(Path(workdir) / self.path):
      first, stop = file.stem.split('-')
      found.update(range(int(first), int(stop)))
    return found

  def write(
    self,
    workdir: Path,
    first: int,
    images: np.ndarray,
    labels: np.ndarray,
    beside: Mapping[str, np.ndarray] = types.MappingProxyType({}),
  ) -> None:
    """Writes images first, first + 1, …: uint8 (n, H, W, C), int32 (n,); all of them or none.

    beside: arrays (n, …) that their sampler tells of each, by names of their own.
    """
    folder = Path(workdir) / self.path
    if not (folder / 'identity.json').exists():
      files.write_json(folder / 'identity.json', self.settings)
    with files.atomic(folder / f'{first:08d}-{first + len(images):08d}.npz') as file:
      indices = np.arange(first, first + len(images))
      np.savez_compressed(file, images=images, labels=labels, indices=indices, **beside)

  def read(
    self, workdir: Path, n: int, batch_size: int = 500
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (images, labels) of indices 0 … n − 1 in order, batch_size at a time.

    Batches do not depend on how the images came to lie in files: sums over them round alike.
    Raises UserError where some are missing or a file is damaged.
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
      raise UserError(f'{Path(workdir) / self.path} has {done} of {n} samples: generate the rest.')

  def beside(self, workdir: Path, name: str, n: int) -> np.ndarray:
    """What the sampler told, by this name, of those of images 0 … n − 1 that are there: (m, …).

    Raises UserError where a file is damaged.
    """
    found = [_load(file, 'indices', name) for file in _files(Path(workdir) / self.path)]
    indices, values = (np.concatenate(parts) for parts in zip(*found))
    indices, first = np.unique(indices, return_index=True)
    return values[first[indices < n]]

  def _read_files(self, workdir, n):
    """What there is of (images, labels) 0 … n − 1 up to the first gap, a file at a time."""
    done = 0
    for file in _files(Path(workdir) / self.path):
      if done == n or int(file.stem.split('-')[0]) > done:
        return  # what comes after a gap is not image `done`
      indices, labels, images = _load(file, 'indices', 'labels', 'images')
      take = (indices >= done) & (indices < n)
      done += int(take.sum())
      yield images[take], labels[take]


def sample_sets(sample: Any, step: int) -> list[SampleSet]:
  """One set for each w of a config's section `sample`, in its order.

  A guide is part of what they are by its weights, wherever it lies.
  """
  settings = sample.to_dict()
  guidance = settings['guidance']
  if guide := guidance.get('guide'):
    folder = files.expand(guide)
    guidance['guide'] = steps.ema_digest(folder, steps.of_guide(guidance, folder))
    guidance.pop('guide_step', None)
  return [SampleSet(identity.settings_of(settings, step, w)) for w in sample.guidance.w]


def index(folder: Path) -> tuple[np.ndarray, np.ndarray]:
  """(indices, labels) of all images in the folder of a set, (N,) each, ascending, each once.

  Raises UserError where a file is damaged.
  """
  found = [_load(file, 'indices', 'labels') for file in _files(folder)]
  indices, labels = (np.concatenate([f[j] for f in found] or [[]]).astype(int) for j in (0, 1))
  indices, first = np.unique(indices, return_index=True)
  return indices, labels[first]


def pick(folder: Path, indices: np.ndarray) -> np.ndarray:
  """The images of some indices, (n, H, W, C) uint8, in their order. Opens only files they are in.

  Raises UserError where one is missing, or a file is damaged or holds no such images.
  """
  images = {}
  for file in _files(folder):
    first, stop = map(int, file.stem.split('-'))
    if any(first <= i < stop for i in indices):
      there, pixels = _load(file, 'indices', 'images')
      if pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[-1] not in (1, 3):
        raise UserError(f'{file} holds {pixels.dtype} {pixels.shape}, not uint8 (N, H, W, 1 or 3).')
      images |= {int(i): image for i, image in zip(there, pixels) if i in indices}
  missing = [int(i) for i in indices if int(i) not in images]
  if missing:
    raise UserError(f'{folder} has no sample {missing[0]}: generate it again.')
  return np.stack([images[int(i)] for i in indices])


def _load(file: Path, *names: str) -> tuple[np.ndarray, ...]:
  """Arrays of a file that `SampleSet.write` wrote: int (n,), int32 (n,), uint8 (n, H, W, C)."""
  first, stop = map(int, file.stem.split('-'))
  try:
    with np.load(file, allow_pickle=False) as arrays:
      found = {name: arrays[name] for name in names}
    if any(
      len(x) != stop - first for x in found.values()
    ):  # the archive's own checksums see the rest
      raise ValueError('it holds another number of images')
    if 'indices' in found and (found['indices'] != range(first, stop)).any():
      raise ValueError('it holds other images')
  except (*files.NPZ_DAMAGE, TypeError) as error:
    raise UserError(f'{file} is damaged ({error}): remove it and generate it again.') from None
  return tuple(found.values())


def _files(folder: Path) -> list[Path]:
  return sorted(f for f in folder.glob('*-*.npz') if re.fullmatch(r'\d{8}-\d{8}\.npz', f.name))
