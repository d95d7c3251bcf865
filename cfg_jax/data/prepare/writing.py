"""Writes a source as a TFDS data set of PNG images in ArrayRecord shards: in parallel, resumably.

A shard appears under its name only when it is whole, then its line in SPLIT.shards.jsonl, and last
of all dataset_info.json, without which nothing is prepared. The order is the source's, so class by
class: shuffle when reading.
"""

import collections
import os
import tempfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.data import prepared
from cfg_jax.data.prepare import images, resumable, sources

VERSION = '1.0.0'  # raise it when the same source would give other images


def write(source: sources.Source, folder: Path, *, workers: int) -> int:
  """Writes every split of `source` that DATA_DIR/NAME/1.0.0 = `folder` lacks.

  Returns by how many images that is not what was published. Raises ValueError where
  the folder holds something else, a part of the source cannot be read (after all other parts are
  done), or a class is left without images. Shards done are kept, whatever happens.
  """
  todo = _splits_to_write(source, folder)
  folder.mkdir(parents=True, exist_ok=True)
  missing = 0
  for split in todo:
    lines = _write_shards(source, folder, split, workers)
    _write_info(source, folder, split, lines)
    missing += _report(source, folder, split, lines)
  return missing


def _splits_to_write(source: sources.Source, folder: Path) -> list[str]:
  """The splits not there yet; ValueError where none is left, or those there are of another kind."""
  if not (folder / 'dataset_info.json').exists():
    return list(source.shards)
  info = tfds.builder_from_directory(folder).info
  if not (todo := [split for split in source.shards if split not in info.splits]):
    raise UserError(
      f'{folder} already has {", ".join(source.shards)}: remove it to prepare it again'
    )
  names = info.features['label'].names
  if strangers := sorted(set(source.class_names) ^ set(names)):
    raise UserError(
      f'class {strangers[0]!r} is in only one of {", ".join(info.splits)} and {", ".join(todo)}: '
      f'all splits in {folder} need the same classes'
    )
  if info.features['image'].shape != source.image_shape:
    raise UserError(
      f'{folder} holds images of {info.features["image"].shape}, not {source.image_shape}: '
      'give the same --size and --rgb'
    )
  return todo


def _write_shards(source: sources.Source, folder: Path, split: str, workers: int) -> list[dict]:
  """Writes the shards that are not done; the journal lines of all, in order."""
  shards, name = source.shards[split], folder.parent.name
  stem = f'{name}-{split}.array_record-'
  paths = [folder / f'{stem}{i:05}-of-{len(shards):05}' for i in range(len(shards))]
  common = (source.image_shape, len(source.class_names), source.upright)
  head = {
    'shards': len(shards),
    'image_shape': list(source.image_shape),
    'classes': sources.digest(source.class_names),
  }
  journal = folder / f'{split}.shards.jsonl'
  done = resumable.read(journal, head)
  for path, shard in zip(paths, shards):
    line = done.get(path.name)
    if line and not (
      path.exists() and path.stat().st_size == line['file_bytes'] and shard.key == line['key']
    ):
      del done[path.name]
  for path in folder.glob(f'{stem}*'):
    if path.name not in done:
      path.unlink()  # half written when a run was killed, or of a source since mended
  lines = resumable.run(
    write_shard,
    {path.name: (shard, path, *common) for path, shard in zip(paths, shards)},
    done,
    journal=journal,
    head=head,
    workers=workers,
    title=f'{name} {split}',
  )
  return list(lines.values())


def write_shard(
  shard: sources.Shard,
  path: Path,
  image_shape: tuple[int, int, int],
  num_classes: int,
  upright: bool,
) -> dict:
  """Writes one shard, less damaged images, and returns its journal line. Runs in a worker."""
  features = _features(image_shape, num_classes=num_classes)
  kinds, labels, skipped, num_bytes = collections.Counter(), collections.Counter(), [], 0
  sizes = []  # of those that are enlarged: the squares' sides
  partial = path.with_name(f'{path.name}.partial-{os.getpid()}')
  try:
    writer = ArrayRecordWriter(str(partial), 'group_size:1')  # so that each can be read by itself
    for name, image, label in shard.read():
      try:
        image, kind, side = _small(image, image_shape, upright)
      except ValueError as error:
        skipped.append(f'{name}: {error}')
        continue
      example = features.encode_example({'image': images.encode(image), 'label': label})
      record = features.serialize_example(example)
      writer.write(record)
      kinds[kind] += 1
      labels[label] += 1
      num_bytes += len(record)
      if side < image_shape[0]:
        sizes.append(side)
    writer.close()
    files.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
  counts = {'images': kinds.total(), 'kinds': kinds, 'labels': labels, 'skipped': skipped}
  counts |= {'enlarged': len(sizes), 'smallest': min(sizes)} if sizes else {}
  return {'key': shard.key, 'file_bytes': path.stat().st_size, 'record_bytes': num_bytes} | counts


def _small(
  image: bytes | np.ndarray, shape: tuple[int, int, int], upright: bool
) -> tuple[np.ndarray, str, int]:
  """The image in its shape, what it was, and the side of the square that it is made of."""
  if isinstance(image, np.ndarray):
    return image, 'uncompressed', image.shape[0]
  image, kind = images.decode(image, upright=upright, channels=shape[2])
  square = images.central_square(image)
  return images.resize(square, shape[0]), kind, len(square)


def _features(image_shape: tuple[int, int, int], **classes) -> tfds.features.FeaturesDict:
  """As TFDS has them for MNIST and CIFAR-10."""
  image = tfds.features.Image(shape=image_shape, encoding_format='png')
  return tfds.features.FeaturesDict({'image': image, 'label': tfds.features.ClassLabel(**classes)})


def _write_info(source: sources.Source, folder: Path, split: str, lines: list[dict]) -> None:
  """Adds the split to the folder's TFDS metadata, dataset_info.json last."""
  found = {int(label) for line in lines for label in line['labels']}
  if absent := [name for i, name in enumerate(source.class_names) if i not in found]:
    raise UserError(
      f'class {absent[0]!r} has no image that can be decoded ({len(absent)} such classes): '
      f'see {folder / split}.shards.jsonl'
    )
  name = folder.parent.name
  old = []
  if (folder / 'dataset_info.json').exists():
    old = list(tfds.builder_from_directory(folder).info.splits.values())
  template = tfds.core.ShardedFileTemplate(
    data_dir=folder, dataset_name=name, split=split, filetype_suffix='array_record'
  )
  new = tfds.core.SplitInfo(
    name=split,
    shard_lengths=[line['images'] for line in lines],
    num_bytes=sum(line['record_bytes'] for line in lines),
    filename_template=template,
  )
  info = tfds.core.DatasetInfo(
    builder=tfds.core.DatasetIdentity(
      name=name, version=tfds.core.Version(VERSION), data_dir=str(folder), module_name=''
    ),
    features=_features(source.image_shape, names=source.class_names),
    disable_shuffling=True,
  )
  info.set_file_format('array_record')
  info.set_splits(tfds.core.SplitDict([*old, new]))
  with tempfile.TemporaryDirectory(dir=folder) as temporary:
    info.write_to_directory(temporary)
    prepared.seal(folder, Path(temporary))
    written = sorted(Path(temporary).iterdir(), key=lambda p: p.name == 'dataset_info.json')
    for path in written:
      files.replace(path, folder / path.name)


def _report(source: sources.Source, folder: Path, split: str, lines: list[dict]) -> int:
  """Says what the split now is, and returns how far it is from the images it should have."""
  kinds = sum((collections.Counter(line['kinds']) for line in lines), collections.Counter())
  skipped = [image for line in lines for image in line['skipped']]
  megabytes = sum(line['file_bytes'] for line in lines) / 1e6
  print(
    f'{folder.parent.name} {split}: {kinds.total():,} images of {len(source.class_names)} classes, '
    f'{len(lines)} shards, {megabytes:,.1f} MB in {folder}'
  )
  print('  from ' + ', '.join(f'{count:,} {kind}' for kind, count in kinds.most_common()))
  if source.image_shape[2] == 1 and 'uncompressed' not in kinds:
    print('  one channel, as all of them are grey (--rgb would make three)')
  if enlarged := sum(line.get('enlarged', 0) for line in lines):
    smallest = min(line['smallest'] for line in lines if line.get('enlarged'))
    print(
      f'  ENLARGED, as they are smaller than {source.image_shape[0]} pixels: {enlarged:,}, the '
      f'smallest from {smallest}'
    )
  if skipped:
    print(
      f'  left out, as they cannot be decoded: {len(skipped)} ({"; ".join(skipped[:5])}'
      f'{"; …" if len(skipped) > 5 else ""}), all named in {split}.shards.jsonl'
    )
  expected = source.expected.get(split, kinds.total())
  if kinds.total() != expected:
    print(f'  NOT COMPLETE: {expected:,} images were published')
  elif split in source.expected:
    print(f'  complete: {expected:,} images')
  return abs(expected - kinds.total())
