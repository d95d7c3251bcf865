"""Writes a source as a TFDS data set of PNG images in ArrayRecord shards: in parallel, resumably.

A shard appears under its name only when it is whole, and a line in SPLIT.shards.jsonl follows it;
after a kill, shards with a line stay and the rest are written. dataset_info.json comes last of all:
without it nothing is prepared. The order is the source's (class by class): shuffle when reading.
"""

import collections
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path

import tensorflow_datasets as tfds
import tqdm
from array_record.python.array_record_module import ArrayRecordWriter
from threadpoolctl import threadpool_limits

from cfg_jax.datasets import images, sources

VERSION = '1.0.0'  # raise it when the same source would give other images


def write(
  source: sources.Source, folder: Path, *, workers: int, say: Callable[[str], None] = print
) -> int:
  """Writes every split of `source` that DATA_DIR/NAME/1.0.0 = `folder` lacks.

  Returns how many of the images that the source should have are missing. Raises ValueError where
  the folder holds something else, a part of the source cannot be read (after all other parts are
  done), or a class is left without images. Shards done are kept, whatever happens.
  """
  todo = _splits_to_write(source, folder)
  folder.mkdir(parents=True, exist_ok=True)
  missing = 0
  for split in todo:
    lines = _write_shards(source, folder, split, workers, say)
    _write_info(source, folder, split, lines)
    missing += _report(source, folder, split, lines, say)
  return missing


def _features(image_shape: tuple[int, int, int], **classes) -> tfds.features.FeaturesDict:
  """As TFDS has them for MNIST and CIFAR-10."""
  image = tfds.features.Image(shape=image_shape, encoding_format='png')
  return tfds.features.FeaturesDict({'image': image, 'label': tfds.features.ClassLabel(**classes)})


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
  partial = path.with_name(f'{path.name}.partial-{os.getpid()}')
  writer = ArrayRecordWriter(str(partial), 'group_size:1')  # one record a chunk, for random access
  with threadpool_limits(1):  # the other cores have shards of their own
    for name, image, label in shard.read():
      kind = 'uncompressed'
      if isinstance(image, bytes):
        try:
          image, kind = images.decode(image, upright=upright)
        except ValueError as error:
          skipped.append(f'{name}: {error}')
          continue
        image = images.resize(images.central_square(image), image_shape[0])
      example = features.encode_example({'image': images.encode(image), 'label': label})
      record = features.serialize_example(example)
      writer.write(record)
      kinds[kind] += 1
      labels[label] += 1
      num_bytes += len(record)
  writer.close()
  os.replace(partial, path)
  sizes = {'file_bytes': path.stat().st_size, 'record_bytes': num_bytes}
  counts = {'kinds': kinds, 'labels': labels, 'skipped': skipped}
  return {'shard': path.name, 'key': shard.key} | sizes | counts


def _splits_to_write(source: sources.Source, folder: Path) -> list[str]:
  """The splits not there yet; ValueError where none is left, or those there are of another kind."""
  if not (folder / 'dataset_info.json').exists():
    return list(source.shards)
  info = tfds.builder_from_directory(folder).info
  if not (todo := [split for split in source.shards if split not in info.splits]):
    raise ValueError(
      f'{folder} already has {", ".join(source.shards)}: remove it to prepare it again'
    )
  names = info.features['label'].names
  if strangers := sorted(set(source.class_names) ^ set(names)):
    raise ValueError(
      f'class {strangers[0]!r} is in only one of {", ".join(info.splits)} and {", ".join(todo)}: '
      f'all splits in {folder} need the same classes'
    )
  if info.features['image'].shape != source.image_shape:
    raise ValueError(
      f'{folder} holds images of {info.features["image"].shape}, not {source.image_shape}'
    )
  return todo


def _write_shards(
  source: sources.Source, folder: Path, split: str, workers: int, say: Callable[[str], None]
) -> list[dict]:
  """Writes the shards that are not done and returns the journal lines of all, in order."""
  shards, name = source.shards[split], folder.parent.name
  stem = f'{name}-{split}.array_record-'
  paths = [folder / f'{stem}{i:05}-of-{len(shards):05}' for i in range(len(shards))]
  journal = folder / f'{split}.shards.jsonl'
  head = {
    'shards': len(shards),
    'image_shape': list(source.image_shape),
    'classes': sources.digest(source.class_names),
  }
  done = _read_journal(journal, head)
  keep = {
    path.name: done[path.name]
    for path, shard in zip(paths, shards)
    if path.exists()
    and done.get(path.name, {}).get('key') == shard.key
    and done[path.name]['file_bytes'] == path.stat().st_size
  }
  for path in folder.glob(f'{stem}*'):
    if path.name not in keep:
      path.unlink()  # half written when a run was killed, or of a source since mended
  todo = [(shard, path) for shard, path in zip(shards, paths) if path.name not in keep]
  failures = []
  with (
    journal.open('a' if keep else 'w') as lines,
    _Progress(f'{name} {split}', len(shards), len(keep), say) as progress,
    _pool(min(workers, max(1, len(todo)))) as pool,
  ):
    if not keep:
      print(json.dumps(head), file=lines, flush=True)
    work = [
      pool.submit(write_shard, *job, source.image_shape, len(source.class_names), source.upright)
      for job in todo
    ]
    for future in futures.as_completed(work):
      try:
        line = future.result()
      except BrokenProcessPool:
        raise ValueError(
          f'a worker process died (out of memory?); {len(keep)} of {len(shards)} shards are kept: '
          'give the same command again, with fewer --workers if memory was short'
        ) from None
      except (ValueError, OSError) as error:
        failures.append(error)
        continue
      keep[line['shard']] = line
      print(json.dumps(line), file=lines, flush=True)
      progress.add(sum(line['labels'].values()))
  if failures:
    raise ValueError(
      f'{failures[0]}; {len(keep)} of {len(shards)} shards are done and kept: '
      'mend this and give the same command again'
    )
  return [keep[path.name] for path in paths]


def _read_journal(path: Path, head: dict) -> dict[str, dict]:
  """The lines of a journal by shard; ValueError where it is another source's."""
  lines = []
  for text in path.read_text().splitlines() if path.exists() else []:
    try:
      lines.append(json.loads(text))
    except json.JSONDecodeError:  # the last line, torn by a kill
      continue
  if lines and lines[0] != head:
    raise ValueError(
      f'{path.parent} holds unfinished shards of another source or size: finish those, or remove it'
    )
  return {line['shard']: line for line in lines[1:]}


def _pool(workers: int) -> futures.Executor:
  if workers == 1:
    return futures.ThreadPoolExecutor(1)
  spawn = multiprocessing.get_context('spawn')
  return futures.ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker)


def _start_worker() -> None:
  """Leaves Ctrl-C to the parent, and ends with it: a pool's workers outlive a killed parent."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def end_with_parent():
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()


class _Progress:
  """A bar on a terminal; elsewhere a plain line every half minute."""

  def __init__(self, title: str, total: int, done: int, say: Callable[[str], None]):
    self.title, self.total, self.done, self.images, self.say = title, total, done, 0, say
    self.started = self.said = time.monotonic()
    terminal = sys.stderr.isatty()
    self.bar = tqdm.tqdm(total=total, initial=done, desc=title, unit='shard') if terminal else None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self.bar:
      self.bar.close()

  def add(self, images: int) -> None:
    """One more shard is done, of so many images."""
    self.done, self.images, now = self.done + 1, self.images + images, time.monotonic()
    rate = f'{self.images / (now - self.started):.0f} images/s'
    if self.bar:
      self.bar.set_postfix_str(rate, refresh=False)
      self.bar.update()
    elif now - self.said > 30:
      self.said = now
      self.say(f'{self.title}: {self.done}/{self.total} shards, {rate}')


def _write_info(source: sources.Source, folder: Path, split: str, lines: list[dict]) -> None:
  """Adds the split to the folder's TFDS metadata, dataset_info.json last."""
  found = {int(label) for line in lines for label in line['labels']}
  if absent := [name for i, name in enumerate(source.class_names) if i not in found]:
    raise ValueError(
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
    shard_lengths=[sum(line['labels'].values()) for line in lines],
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
    written = sorted(Path(temporary).iterdir(), key=lambda p: p.name == 'dataset_info.json')
    for path in written:
      os.replace(path, folder / path.name)


def _report(
  source: sources.Source, folder: Path, split: str, lines: list[dict], say: Callable[[str], None]
) -> int:
  """Says what the split now is, and returns how many images it should have and has not."""
  kinds = sum((collections.Counter(line['kinds']) for line in lines), collections.Counter())
  skipped = [image for line in lines for image in line['skipped']]
  megabytes = sum(line['file_bytes'] for line in lines) / 1e6
  say(
    f'{folder.parent.name} {split}: {kinds.total():,} images of {len(source.class_names)} classes, '
    f'{len(lines)} shards, {megabytes:,.1f} MB in {folder}'
  )
  say('  from ' + ', '.join(f'{count:,} {kind}' for kind, count in kinds.most_common()))
  if skipped:
    say(
      f'  left out, as they cannot be decoded: {len(skipped)} ({"; ".join(skipped[:5])}'
      f'{"; …" if len(skipped) > 5 else ""}), all named in {split}.shards.jsonl'
    )
  expected = source.expected.get(split, kinds.total())
  missing = expected - kinds.total()
  if split in source.expected:
    say(
      f'  complete: {expected:,} images'
      if missing == 0
      else f'  INCOMPLETE: {kinds.total():,} of the published {expected:,} images, '
      f'{len(skipped):,} damaged and {missing - len(skipped):,} not in the source'
    )
  return abs(missing)
