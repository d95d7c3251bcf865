"""Puts a data set into the data directory, once, without TensorFlow.

  python -m cfg_jax.datasets.prepare imagenet64 --source ILSVRC2012_img_train.tar
  python -m cfg_jax.datasets.prepare imagenet64 --source ILSVRC2012_img_val.tar --split validation
  python -m cfg_jax.datasets.prepare imagenet128 --source FOLDER_OF_SYNSET_FOLDERS
  python -m cfg_jax.datasets.prepare cifar10 --source cifar-10-binary.tar.gz
  python -m cfg_jax.datasets.prepare fashion_mnist --source FOLDER_OF_ITS_FOUR_IDX_FILES
  python -m cfg_jax.datasets.prepare flowers --source FOLDER_OF_CLASS_FOLDERS --size 32

Debian's package dataset-fashion-mnist puts those four into /usr/share/datasets/fashion-mnist.

Any name but ours makes a data set of your own, from then on called --config.data.name=flowers.
Photographs are cropped to their central square and resized to exact area averages (see images.py).
Every core works at a shard of its own; if the command is killed, give it again and it goes on. The
result, DATA_DIR/NAME/1.0.0, is a TFDS data set of PNG images in ArrayRecord files, class by class.

Exit status: 0 if all is prepared; 2 if it is not: one line says why, and the shards done are kept;
3 if it is prepared, but with fewer images than ImageNet has, and it says how many and why.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from cfg_jax import datasets
from cfg_jax.datasets import classics, imagenet, sources, writing


def describe(name: str, path: Path, split: str | None, size: int | None) -> sources.Source:
  """What `name` is to be prepared from, listed but not read; ValueError where that won't do.

  `split` is None for train; `size` is that of the square images of a data set of one's own.
  """
  if name == 'digits':
    raise ValueError('digits needs no preparing: they come with scikit-learn')
  if not path.exists():
    raise ValueError(f'--source {path} does not exist')
  if name not in datasets.DATASETS:
    if not re.fullmatch('[a-z][a-z0-9_]*', name):
      raise ValueError(f'{name!r} cannot name a data set: use lower-case letters, digits and _')
    if size is None or size < 1:
      known = ', '.join(datasets.DATASETS)
      raise ValueError(f'{name} is none of {known}: for a data set of your own give --size, as 64')
    return sources.folder_source(path, split or 'train', size)
  if size is not None:
    raise ValueError(f'--size {size} is for data sets of your own: {name} has its size')
  if name.startswith('imagenet'):
    return imagenet.source(path, split or 'train', datasets.DATASETS[name].image_shape[0])
  if split is not None:
    raise ValueError(f'--split {split}: {name} is prepared as a whole, leave --split out')
  return classics.cifar10_source(path) if name == 'cifar10' else classics.idx_source(name, path)


def main(argv: Sequence[str] | None = None) -> int:
  """The command; returns its exit status."""
  summary, details = __doc__.split('\n', 1)
  parser = argparse.ArgumentParser(
    prog='python -m cfg_jax.datasets.prepare',
    description=summary,
    epilog=details,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('name', help=f'{", ".join(datasets.DATASETS)}, or a name of your own')
  parser.add_argument('--source', type=Path, required=True, help='the files to prepare it from')
  parser.add_argument('--data_dir', type=Path, default=Path('data'), help='default: %(default)s')
  parser.add_argument('--split', help='default: train; ImageNet also has validation')
  parser.add_argument('--size', type=int, help='height and width, for a data set of your own')
  cores = len(os.sched_getaffinity(0))
  parser.add_argument('--workers', type=int, default=cores, help='default: %(default)s, the cores')
  args = parser.parse_args(argv)
  try:
    if args.workers < 1:
      raise ValueError(f'--workers {args.workers} must be at least 1')
    source = describe(args.name, args.source.expanduser(), args.split, args.size)
    folder = args.data_dir.expanduser() / args.name / writing.VERSION
    return 3 if writing.write(source, folder, workers=args.workers) else 0
  except (ValueError, OSError) as error:
    print(f'prepare: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('prepare: interrupted; give the same command again to go on', file=sys.stderr)
    return 130


if __name__ == '__main__':
  sys.exit(main())
