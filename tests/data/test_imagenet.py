"""ImageNet prepared from its tars and folders, whole and damaged."""

import gzip

import numpy as np
import pytest
from PIL import Image

from cfg_jax.data import registry as datasets
from cfg_jax.data.prepare import __main__ as prepare
from cfg_jax.data.prepare import imagenet
from tests.conftest import SYNSETS
from tests.raw_datasets import (
  assert_holds,
  content,
  cut_outside,
  jpeg,
  lacking,
  prepared,
  run,
  tar_bytes,
  training_files,
  training_tar,
  unknown,
  write_folder,
  write_tar,
)


def test_the_1000_classes_and_50_000_validation_labels_are_imagenet2012s():
  names, labels = imagenet.class_names(), imagenet.validation_names()
  assert len(names) == 1000 and names == sorted(names)
  assert (names[0], names[151], names[999]) == ('n01440764', 'n02085620', 'n15075141')
  assert np.unique(labels, return_counts=True)[1].tolist() == [50] * 1000
  assert set(labels) == set(names)
  assert labels[0] == 'n01751748'  # ILSVRC2012_val_00000001.JPEG is a sea snake


@pytest.mark.parametrize('kind', ['tar', 'folder'])
def test_imagenet_training_images_in_class_order(kind, tmp_path, imagenet_of_four, capsys):
  files = training_files()
  if kind == 'tar':
    source = training_tar(tmp_path, files)
  else:
    flat = {f'{c}/{name}': data for c, part in files.items() for name, data in part.items()}
    source = write_folder(tmp_path / 'train', flat)
  assert run('imagenet64', '--source', source, '--data_dir', tmp_path) == 0
  expected = [
    (prepared(data, 64), c) for c, synset in enumerate(SYNSETS) for data in files[synset].values()
  ]
  assert_holds(content('imagenet64', tmp_path), expected)
  out = capsys.readouterr().out
  assert 'complete: 12 images' in out and '12 JPEG RGB' in out
  folder = tmp_path / 'imagenet64/1.0.0'
  assert len(list(folder.glob('*.array_record-*'))) > 1
  assert (folder / 'label.labels.txt').read_text().split() == SYNSETS


def test_imagenet_validation_labels_come_by_image_number(tmp_path, imagenet_of_four):
  files = {f'ILSVRC2012_val_{i:08}.JPEG': jpeg(i) for i in range(8, 0, -1)}
  tar = write_tar(tmp_path / 'val.tar', files)
  train = training_tar(tmp_path, training_files())
  run('imagenet128', '--source', train, '--data_dir', tmp_path)
  before = datasets.fingerprint(datasets.DATASETS['imagenet128'].open(tmp_path, 'train'))
  args = ('imagenet128', '--source', tar, '--data_dir', tmp_path, '--split', 'validation')
  assert run(*args) == 0
  found = content('imagenet128', tmp_path, 'validation')
  assert sorted(label for _, label in found) == [0, 0, 1, 1, 2, 2, 3, 3]
  for number, label in zip(range(1, 9), (2, 0, 3, 1) * 2):
    image = prepared(files[f'ILSVRC2012_val_{number:08}.JPEG'], 128)
    assert any(label == other and (image == i).all() for i, other in found)
  # The training split is as it was.
  train = datasets.DATASETS['imagenet128'].open(tmp_path, 'train')
  assert datasets.fingerprint(train) == before


def test_odd_images_are_decoded_and_damaged_ones_named_and_counted(
  tmp_path, imagenet_of_four, capsys
):
  files = training_files()
  files[SYNSETS[0]][f'{SYNSETS[0]}_0.JPEG'] = jpeg(0, mode='CMYK')
  exif = Image.Exif()
  exif[0x0112] = 6  # Orientation, which imagenet2012 leaves alone
  files[SYNSETS[0]][f'{SYNSETS[0]}_1.JPEG'] = jpeg(1, exif=exif)
  files[SYNSETS[2]][f'{SYNSETS[2]}_0.JPEG'] = jpeg(20, 'PNG')
  files[SYNSETS[2]][f'{SYNSETS[2]}_1.JPEG'] = jpeg(21)[:-700]
  del files[SYNSETS[3]][f'{SYNSETS[3]}_2.JPEG']
  source = training_tar(tmp_path, files)
  assert run('imagenet64', '--source', source, '--data_dir', tmp_path) == 3
  out = capsys.readouterr().out
  assert '8 JPEG RGB, 1 JPEG CMYK, 1 PNG RGB' in out
  assert 'cannot be decoded: 1 (n02105855.tar/n02105855_1.JPEG: ' in out
  assert '10 images of 4 classes' in out and 'NOT COMPLETE: 12 images were published' in out
  found = content('imagenet64', tmp_path)
  assert [label for _, label in found] == [0] * 3 + [1] * 3 + [2] * 2 + [3] * 2
  np.testing.assert_array_equal(found[1][0], prepared(jpeg(1), 64))
  np.testing.assert_array_equal(found[6][0], prepared(jpeg(20, 'PNG'), 64))


def compressed(tmp_path):
  tar = training_tar(tmp_path, training_files())
  tar.write_bytes(gzip.compress(tar.read_bytes()))
  return tar


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (cut_outside, 'ends early'),
    (lacking, 'lacks 1 (n01443537) of 4 classes'),
    (unknown, "holds 1 (n99999999), outside imagenet2012's 4 classes"),
    (compressed, 'not an uncompressed tar'),
    (lambda tmp_path: tmp_path / 'absent.tar', 'does not exist'),
  ],
)
def test_a_bad_training_tar_is_one_line_before_any_work(
  make, message, tmp_path, imagenet_of_four, capsys
):
  assert run('imagenet64', '--source', make(tmp_path), '--data_dir', tmp_path) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
  assert not (tmp_path / 'imagenet64').exists()


def test_a_validation_image_outside_the_numbers_is_named(tmp_path, imagenet_of_four, capsys):
  tar = write_tar(tmp_path / 'val.tar', {'ILSVRC2012_val_00000009.JPEG': jpeg(0)})
  args = ('--source', tar, '--data_dir', tmp_path, '--split', 'validation')
  assert run('imagenet64', *args) == 2
  assert 'ILSVRC2012_val_00000009.JPEG is not' in capsys.readouterr().err


def test_a_class_tar_cut_inside_costs_its_shard_only_and_mends(tmp_path, imagenet_of_four, call):
  files = training_files()
  whole = {f'{synset}.tar': tar_bytes(files[synset], tmp_path) for synset in SYNSETS}
  cut = whole | {f'{SYNSETS[1]}.tar': whole[f'{SYNSETS[1]}.tar'][:4000]}
  source = write_tar(tmp_path / 'train.tar', cut)
  args = ('imagenet64', '--source', source, '--data_dir', tmp_path)
  done = call(prepare, *args, '--workers', 1)
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
  assert 'ends early' in done.stderr and 'are done and kept' in done.stderr
  with pytest.raises(ValueError, match="'imagenet64' is not prepared"):
    content('imagenet64', tmp_path)
  folder = tmp_path / 'imagenet64/1.0.0'
  kept = {p.name: p.stat().st_mtime_ns for p in folder.glob('*.array_record-?????-of-?????')}
  assert len(kept) == 3
  write_tar(source, whole)
  assert run(*args) == 0
  after = {p.name: p.stat().st_mtime_ns for p in folder.glob('*.array_record-*')}
  assert kept.items() < after.items()
  assert len(content('imagenet64', tmp_path)) == 12
