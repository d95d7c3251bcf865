"""Puts a data set into the data directory, once, without TensorFlow.

  python -m cfg_jax.data.prepare imagenet64 --source ILSVRC2012_img_train.tar
  python -m cfg_jax.data.prepare imagenet64 --source ILSVRC2012_img_val.tar --split validation
  python -m cfg_jax.data.prepare imagenet128 --source FOLDER_OF_SYNSET_FOLDERS
  python -m cfg_jax.data.prepare cifar10 --source cifar-10-binary.tar.gz
  python -m cfg_jax.data.prepare fashion_mnist --source FOLDER_OF_ITS_FOUR_IDX_FILES
  python -m cfg_jax.data.prepare flowers --source FOLDER_OF_CLASS_FOLDERS --size 32

Debian's package dataset-fashion-mnist puts those four into /usr/share/datasets/fashion-mnist.

Any name but ours makes a data set of your own, from then on called --set data.name=flowers. Where
all of its images are grey they keep their one channel; --rgb makes them three.
Photographs are cropped to their central square and resized to exact area averages (see images.py).
Every core works at a shard of its own; if the command is killed, give it again and it goes on. The
result, DATA_DIR/NAME/1.0.0, is a TFDS data set of PNG images in ArrayRecord files, class by class.

Exit status: 0 if all is prepared; 2 if it is not: one line says why, and the shards done are kept;
3 if it is prepared, but with fewer images than ImageNet has, and it says how many and why.
"""

import os
import re
import sys
from pathlib import Path

from absl import flags

from cfg_jax.core import command, files
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry as datasets
from cfg_jax.data.prepare import classics, imagenet, sources, writing


def prepare(
  name: str,
  source: Path,
  data_dir: Path,
  *,
  split: str | None = None,
  size: int | None = None,
  rgb: bool = False,
  workers: int = 1,
) -> int:
  """Prepares `name` in `data_dir`; returns by how many images it is not what was published.

  Raises ValueError where it can't be done. What was prepared before is never overwritten.
  """
  if workers < 1:
    raise UserError(f'workers={workers} must be at least 1')
  try:
    described = describe(name, files.expand(source), split, size, rgb)
    return writing.write(
      described, files.expand(data_dir) / name / writing.VERSION, workers=workers
    )
  except OSError as error:  # no such file, no permission, no space
    raise UserError(str(error)) from error


def describe(
  name: str, path: Path, split: str | None, size: int | None, rgb: bool = False
) -> sources.Source:
  """What `name` is to be prepared from, listed but not read; ValueError where that won't do.

  `split` is None for train; `size` is that of the square images of a data set of one's own, and
  `rgb` makes three channels of grey ones.
  """
  if name == 'digits':
    raise UserError('digits needs no preparing: they come with scikit-learn')
  if not path.exists():
    raise UserError(f'--source={path} does not exist')
  if name not in datasets.DATASETS:
    if not re.fullmatch('[a-z][a-z0-9_]*', name):
      raise UserError(f'{name!r} cannot name a data set: use lower-case letters, digits and _')
    if size is None or not 1 <= size <= 4096:
      known = ', '.join(datasets.DATASETS)
      raise UserError(
        f'{name} is none of {known}: for a data set of your own give --size, as 64, at most 4096'
      )
    return sources.folder_source(path, split or 'train', size, rgb)
  if rgb:
    raise UserError(f'--rgb is for data sets of your own: {name} has its channels')
  if size is not None:
    raise UserError(f'--size={size} is for data sets of your own: {name} has its size')
  if name.startswith('imagenet'):
    return imagenet.source(path, split or 'train', datasets.DATASETS[name].image_shape[0])
  if split is not None:
    raise UserError(f'--split={split}: {name} is prepared as a whole, leave --split out')
  return classics.cifar10_source(path) if name == 'cifar10' else classics.idx_source(name, path)


def main(argv: list[str]) -> None:
  """The command."""
  if len(argv) != 2:
    known = ', '.join(datasets.DATASETS)
    raise UserError(f'give one name to prepare: {known}, or one of your own')
  args = flags.FLAGS
  options = {name: args[name].value for name in ('split', 'size', 'rgb', 'workers')}
  try:
    if prepare(argv[1], Path(args.source), Path(args.data_dir), **options):
      sys.exit(3)
  except KeyboardInterrupt:
    print('Interrupted: give the same command again to go on', file=sys.stderr)
    sys.exit(130)


def define_flags() -> None:
  """The command's flags."""
  flags.DEFINE_string('source', None, 'The files to prepare it from.', required=True)
  flags.DEFINE_string('data_dir', '~/tensorflow_datasets', 'As config.data.dir.')
  flags.DEFINE_string('split', None, 'By default train; ImageNet also has validation.')
  flags.DEFINE_integer('size', None, 'Height and width, for a data set of your own.')
  flags.DEFINE_boolean('rgb', False, 'Makes RGB of grey images of your own.')
  flags.DEFINE_integer('workers', len(os.sched_getaffinity(0)), 'By default one for each core.')


if __name__ == '__main__':
  define_flags()
  command.run(main, words=True)
