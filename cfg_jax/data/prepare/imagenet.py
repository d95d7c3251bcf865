"""ILSVRC 2012 as TFDS's `imagenet2012` numbers it: its two tars, or their images in class folders.

TFDS's wheel holds the 1000 synsets in their order (sorted, as it happens) and the synset of each
validation image, so neither stands here and the development kit is not needed. (The kit,
ILSVRC2012_devkit_t12.tar.gz, has the same truth in data/ILSVRC2012_validation_ground_truth.txt, but
by ILSVRC2012_ID, an order of its own that only data/meta.mat takes to synsets.)
"""

from pathlib import Path

import tensorflow_datasets as tfds

from cfg_jax.core.errors import UserError
from cfg_jax.data.prepare import sources

NUM_IMAGES = {'train': 1_281_167, 'validation': 50_000}


def class_names() -> list[str]:
  """The 1000 synsets ('n01440764', …): label i is the i-th."""
  return tfds.core.tfds_path('datasets/imagenet2012/labels.txt').read_text().split()


def validation_names() -> list[str]:
  """The synset of ILSVRC2012_val_00000001.JPEG, …, ILSVRC2012_val_00050000.JPEG."""
  return tfds.core.tfds_path('datasets/imagenet2012/validation_labels.txt').read_text().split()


def source(path: Path, split: str, size: int) -> sources.Source:
  """The images of a split in class order, from a tar or a folder of class folders.

  The tars are ILSVRC2012_img_train.tar (a tar for each class) and ILSVRC2012_img_val.tar (images).
  Raises ValueError where classes or validation images are missing or unknown.
  """
  if split not in NUM_IMAGES:
    raise UserError(f'--split={split} must be one of {", ".join(NUM_IMAGES)}')
  names = class_names()
  if path.is_dir():
    found = dict(sources.folder_entries(path))
  elif split == 'train':
    found = {Path(tar.name).stem: [tar] for tar in sources.tar_entries(path)}
  else:
    found = {name: [] for name in names}
    labels = validation_names()
    for image in sources.tar_entries(path):
      found[labels[_validation_index(image.name, len(labels))]].append(image)
  if unknown := sorted(found.keys() - set(names)):
    raise UserError(f"{path} holds {_some(unknown)}, outside imagenet2012's {len(names)} classes")
  if missing := [name for name in names if not found.get(name)]:
    raise UserError(f'{path} lacks {_some(missing)} of {len(names)} classes: did it arrive whole?')
  entries = [e._replace(label=i) for i, name in enumerate(names) for e in found[name]]
  of_tars = split == 'train' and path.is_file()
  return sources.Source(
    names,
    (size, size, 3),
    {split: sources.shards(entries, of_tars=of_tars)},
    {split: NUM_IMAGES[split]},
    upright=False,  # imagenet2012 and all that was trained on it leave them as they lie
  )


def _validation_index(name: str, num_images: int) -> int:
  number = name.removeprefix('ILSVRC2012_val_').removesuffix('.JPEG')
  if not (number.isdecimal() and 1 <= int(number) <= num_images):
    raise UserError(f'{name} is not a validation image, ILSVRC2012_val_00000001.JPEG and so on')
  return int(number) - 1


def _some(names: list[str]) -> str:
  return f'{len(names)} ({", ".join(names[:3])}{", …" if len(names) > 3 else ""})'
