"""The registry, reading what is prepared on disk, and the fingerprint."""

import json
import shutil

import numpy as np
import pytest

from cfg_jax.core.errors import UserError
from cfg_jax.data import prepared
from cfg_jax.data import registry as datasets
from cfg_jax.data.prepare import sources, writing


def make(data_dir, name='dots', counts=(4, 3), level=10, splits=('train',)):
  """A data set of plain 8×8 images, one shard for each count, two classes."""

  def read(count):
    return lambda: ((str(i), np.full((8, 8, 3), level + i, np.uint8), i % 2) for i in range(count))

  shards = [sources.Shard(str(count), read(count)) for count in counts]
  source = sources.Source(['dot', 'dash'], (8, 8, 3), {split: shards for split in splits})
  writing.write(source, data_dir / name / '1.0.0', workers=1)
  return datasets.get(name, data_dir)


def test_get_finds_ours_and_ones_own(tmp_path):
  assert datasets.get('imagenet64', tmp_path) is datasets.DATASETS['imagenet64']
  own = make(tmp_path)
  assert (own.image_shape, own.num_classes, own.num_train) == ((8, 8, 3), 2, 7)
  images = own.open(tmp_path, 'train')
  assert len(images) == 7
  np.testing.assert_array_equal(images[5]['image'], np.full((8, 8, 3), 11, np.uint8))
  assert [image['label'] for image in images.__getitems__([5, 0])] == [1, 0]


def test_get_names_what_there_is(tmp_path):
  with pytest.raises(
    ValueError, match=r"data.name='digit' is none of digits, mnist.*prepare --help"
  ):
    datasets.get('digit', tmp_path)
  with pytest.raises(ValueError, match=r'prepare mnist --data_dir .* --source'):
    datasets.get('mnist', tmp_path).open(tmp_path, 'train')
  with pytest.raises(ValueError, match=r"'test'.*\['train'\]"):
    make(tmp_path).open(tmp_path, 'test')


def test_the_newest_version_is_read_and_unfinished_ones_are_not(tmp_path):
  make(tmp_path, counts=(2,))
  shutil.copytree(tmp_path / 'dots/1.0.0', tmp_path / 'dots/10.0.0')
  make(tmp_path, 'more', counts=(5,))
  shutil.copytree(tmp_path / 'more/1.0.0', tmp_path / 'dots/9.0.0')
  (tmp_path / 'dots/11.0.0').mkdir()
  assert prepared.builder('dots', tmp_path).data_path.name == '10.0.0'


def test_other_file_formats_of_tfds_are_refused_in_one_line(tmp_path):
  dots = make(tmp_path)
  path = tmp_path / 'dots/1.0.0/dataset_info.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'fileFormat': 'tfrecord'}))
  path.with_name(prepared.DIGESTS).unlink()  # TFDS writes none
  with pytest.raises(ValueError, match="^.* is not in the ArrayRecord format: .*'array_record'$"):
    dots.open(tmp_path, 'train')


def test_the_fingerprint_stays_with_the_data_wherever_it_lies(tmp_path):
  here = datasets.fingerprint(make(tmp_path).open(tmp_path, 'train'))
  shutil.copytree(tmp_path, tmp_path / 'there')
  there = datasets.get('dots', tmp_path / 'there').open(tmp_path / 'there', 'train')
  assert datasets.fingerprint(there) == here


def test_the_fingerprint_tells_data_apart(tmp_path):
  variants = {
    'plain': {},
    'other name': {'name': 'dashes'},
    'more images': {'counts': (4, 4)},
    'other shards': {'counts': (3, 4)},
    'other split': {'splits': ('test',)},
  }
  found = {}
  for variant, options in variants.items():
    folder, split = tmp_path / variant, options.get('splits', ('train',))[0]
    make_source = make(folder, **options) if split == 'train' else None
    if make_source is None:
      make(folder, splits=('train', 'test'))
      make_source = datasets.get('dots', folder)
    found[variant] = datasets.fingerprint(make_source.open(folder, split))
  found['part'] = datasets.fingerprint(make_source.open(folder, 'train[:3]'))
  found['other part'] = datasets.fingerprint(make_source.open(folder, 'train[3:6]'))
  labels = tmp_path / 'plain/dots/1.0.0/label.labels.txt'
  labels.write_text(labels.read_text().replace('dash', 'line'))
  prepared.seal(labels.parent)
  renamed = datasets.get('dots', tmp_path / 'plain').open(tmp_path / 'plain', 'train')
  found['other class'] = datasets.fingerprint(renamed)
  assert len(set(found.values())) == len(found) == 8


def test_the_digits_have_a_fingerprint_too(tmp_path):
  digits = [datasets.DATASETS['digits'].open(tmp_path / d, 'train') for d in 'ab']
  assert datasets.fingerprint(digits[0]) == datasets.fingerprint(digits[1])


@pytest.mark.parametrize('name', prepared.METADATA)
def test_changed_metadata_are_noticed_and_a_second_split_is_not_damage(tmp_path, name):
  make(tmp_path)
  make(tmp_path, splits=('validation',))
  assert len(datasets.get('dots', tmp_path).open(tmp_path, 'train')) == 7
  file = tmp_path / 'dots' / '1.0.0' / name
  file.write_bytes(file.read_bytes() + b' ')
  with pytest.raises(UserError, match=f'dots/1.0.0 is damaged .{name} is not the one'):
    datasets.get('dots', tmp_path)
  (file.parent / prepared.DIGESTS).unlink()  # as TFDS leaves it
  datasets.get('dots', tmp_path)


def test_a_damaged_record_names_its_folder(tmp_path):
  own = make(tmp_path, counts=(7,))
  [file] = (tmp_path / 'dots' / '1.0.0').glob('*array_record*')
  data = bytearray(file.read_bytes())
  for i in range(data.index(b'IHDR'), data.index(b'IEND')):
    data[i] ^= 4
  file.write_bytes(data)
  with pytest.raises(UserError, match='dots/1.0.0 is damaged'):
    source = own.open(tmp_path, 'train')
    [source[i] for i in range(7)]
