"""The prepare command on tars and folders of real JPEG patches, whole and damaged."""

import functools
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from cfg_jax import datasets
from cfg_jax.datasets import imagenet, images, prepare, sources

SYNSETS = ['n01440764', 'n01443537', 'n02105855', 'n15075141']


@functools.cache
def patch(seed, shape=(60, 80)):
  """A patch of one of scikit-learn's two photographs, (H, W, 3)."""
  rng = np.random.default_rng(seed)
  photo = load_sample_images().images[seed % 2]
  y, x = (rng.integers(0, n - m) for n, m in zip(photo.shape, shape))
  return photo[y : y + shape[0], x : x + shape[1]]


def jpeg(seed, format='JPEG', mode='RGB', **options):
  buffer = io.BytesIO()
  Image.fromarray(patch(seed)).convert(mode).save(buffer, format, **options)
  return buffer.getvalue()


def prepared(data, size):
  """What a data set should hold for the encoded image `data`."""
  return images.resize(images.central_square(images.decode(data, upright=False)[0]), size)


def write_tar(path, files):
  with tarfile.open(path, 'w') as tar:
    for name, data in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return path


def tar_bytes(files, tmp_path):
  return write_tar(tmp_path / 'inner.tar', files).read_bytes()


def write_folder(path, files):
  for name, data in files.items():
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(data)
  return path


def idx(array):
  shape = np.array(array.shape, '>i4').tobytes()
  return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def grey_patches(count):
  images = np.stack([patch(i, (28, 28))[..., 1] for i in range(count)])
  return images, np.arange(count) % 10


def idx_files(zipped=False):
  images, labels = grey_patches(30)
  files = {
    'train-images-idx3-ubyte': idx(images[:20]),
    'train-labels-idx1-ubyte': idx(labels[:20]),
    't10k-images-idx3-ubyte': idx(images[20:]),
    't10k-labels-idx1-ubyte': idx(labels[20:]),
  }
  return {f'{k}.gz': gzip.compress(v) for k, v in files.items()} if zipped else files


def run(name, *args):
  """As the command: its exit status, with a ValueError's text on stderr."""
  options = {flag.removeprefix('--'): value for flag, value in zip(args[::2], args[1::2])}
  try:
    return 3 if prepare.prepare(name, **options) else 0
  except ValueError as error:
    print(error, file=sys.stderr)
    return 2


@pytest.fixture
def imagenet_of_four(monkeypatch):
  """ImageNet with 4 classes, 3 training images and 2 validation images each; a shard per file."""
  monkeypatch.setattr(imagenet, 'class_names', lambda: SYNSETS)
  monkeypatch.setattr(imagenet, 'validation_names', lambda: [SYNSETS[i] for i in (2, 0, 3, 1) * 2])
  monkeypatch.setattr(imagenet, 'NUM_IMAGES', {'train': 12, 'validation': 8})
  monkeypatch.setattr(sources, 'SHARD_BYTES', 1)


def training_files():
  return {
    synset: {f'{synset}_{i}.JPEG': jpeg(10 * c + i) for i in range(3)}
    for c, synset in enumerate(SYNSETS)
  }


def training_tar(tmp_path, files):
  """As ILSVRC2012_img_train.tar: a tar for each class, here not in order."""
  inner = {f'{synset}.tar': tar_bytes(files[synset], tmp_path) for synset in reversed(files)}
  return write_tar(tmp_path / 'ILSVRC2012_img_train.tar', inner)


def content(name, data_dir, split='train'):
  source = datasets.get(name, data_dir).open(data_dir, split)
  return [(source[i]['image'], source[i]['label']) for i in range(len(source))]


def assert_holds(found, expected):
  assert [label for _, label in found] == [label for _, label in expected]
  for (image, _), (other, _) in zip(found, expected):
    np.testing.assert_array_equal(image, other)


# ImageNet


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


def cut_outside(tmp_path):
  tar = training_tar(tmp_path, training_files())
  os.truncate(tar, tar.stat().st_size - 25_000)
  return tar


def lacking(tmp_path):
  return training_tar(tmp_path, {s: f for s, f in training_files().items() if s != SYNSETS[1]})


def unknown(tmp_path):
  return training_tar(tmp_path, training_files() | {'n99999999': {'x.JPEG': jpeg(0)}})


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


# One's own folders


def own(tmp_path, count=3, name='photos'):
  files = {f'{c}/{i}.jpg': jpeg(i) for i in range(count) for c in ('cats', 'big dogs')}
  return write_folder(tmp_path / name, files)


def test_a_folder_becomes_a_data_set_of_its_name(tmp_path, capsys):
  source = own(tmp_path)
  (source / '.hidden').mkdir()
  (source / 'cats/.DS_Store').write_bytes(b'x')
  assert run('pets', '--source', source, '--size', 16, '--data_dir', tmp_path) == 0
  assert 'left out' not in capsys.readouterr().out
  pets = datasets.get('pets', tmp_path)
  assert (pets.image_shape, pets.num_classes, pets.num_train) == ((16, 16, 3), 2, 6)
  expected = [(prepared(jpeg(i), 16), c) for c in (0, 1) for i in range(3)]
  assert_holds(content('pets', tmp_path), expected)
  names = pets.open(tmp_path, 'train').dataset_info.features['label'].names
  assert names == ['big dogs', 'cats']


def test_what_is_prepared_is_not_overwritten(tmp_path, capsys):
  source = own(tmp_path)
  args = ('pets', '--source', source, '--data_dir', tmp_path, '--size')
  run(*args, 16)
  before = content('pets', tmp_path)
  for size in (16, 32):
    assert run(*args, size) == 2
    assert 'already has train' in capsys.readouterr().err
  assert run(*args, 32, '--split', 'test') == 2
  assert 'holds images of (16, 16, 3)' in capsys.readouterr().err
  (source / 'cats').rename(source / 'lions')
  assert run(*args, 16, '--split', 'test') == 2
  assert "class 'cats' is in only one of train and test" in capsys.readouterr().err
  assert_holds(content('pets', tmp_path), before)


def test_unfinished_shards_of_another_source_are_not_touched(tmp_path, capsys):
  source = own(tmp_path)
  args = ('pets', '--source', source, '--data_dir', tmp_path, '--size')
  run(*args, 16)
  folder = tmp_path / 'pets/1.0.0'
  (folder / 'dataset_info.json').unlink()  # as if killed before the end
  before = {p: p.read_bytes() for p in folder.iterdir()}
  assert run(*args, 32) == 2
  assert 'unfinished shards of another source or size' in capsys.readouterr().err
  assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_a_shard_whose_images_changed_is_done_again_and_no_other(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'SHARD_BYTES', 1)
  source = own(tmp_path)
  args = ('pets', '--source', source, '--data_dir', tmp_path, '--size', 16)
  run(*args)
  folder = tmp_path / 'pets/1.0.0'
  (folder / 'dataset_info.json').unlink()  # as if killed before the end
  before = {p.name: p.stat().st_mtime_ns for p in folder.glob('*.array_record-*')}
  (source / 'cats/2.jpg').write_bytes(jpeg(7))
  assert run(*args) == 0
  after = {p.name: p.stat().st_mtime_ns for p in folder.glob('*.array_record-*')}
  assert [n for n in after if before[n] != after[n]] == ['pets-train.array_record-00005-of-00006']
  np.testing.assert_array_equal(content('pets', tmp_path)[5][0], prepared(jpeg(7), 16))


def test_nothing_is_prepared_before_all_its_metadata_is_there(tmp_path, monkeypatch):
  replace = os.replace

  def fail_at_labels(source, target):
    if target.name == 'label.labels.txt':
      raise OSError('no space left on device')
    replace(source, target)

  monkeypatch.setattr(os, 'replace', fail_at_labels)
  args = ('pets', '--source', own(tmp_path), '--data_dir', tmp_path, '--size', 16)
  assert run(*args) == 2
  with pytest.raises(ValueError, match='not prepared'):
    datasets.get('pets', tmp_path)


def one_class(folder):
  return write_folder(folder, {'cats/0.jpg': jpeg(0)})


def empty_class(folder):
  (own(folder) / 'mice').mkdir()
  return folder / 'photos'


def hopeless_class(folder):
  return write_folder(own(folder), {'mice/notes.txt': b'no image'})


@pytest.mark.parametrize(
  ('make', 'args', 'message'),
  [
    (one_class, ('pets', '--size', 8), 'holds 1 class folders (cats)'),
    (empty_class, ('pets', '--size', 8), 'mice holds no images'),
    (hopeless_class, ('pets', '--size', 8), "class 'mice' has no image that can be decoded"),
    (own, ('pets',), 'give --size'),
    (own, ('my-pets', '--size', 8), "'my-pets' cannot name a data set"),
    (own, ('mnist', '--size', 8), '--size=8 is for data sets of your own'),
    (own, ('mnist',), 'lacks train-images-idx3-ubyte'),
    (own, ('mnist', '--split', 'test'), 'leave --split out'),
    (own, ('imagenet64', '--split', 'test'), '--split=test must be one of train, validation'),
    (own, ('imagenet64',), 'outside imagenet2012'),
    (own, ('cifar10',), 'not a tar'),
    (own, ('digits',), 'needs no preparing'),
  ],
)
def test_bad_input_is_one_line(make, args, message, tmp_path, capsys):
  assert run(*args, '--source', make(tmp_path / 'in'), '--data_dir', tmp_path) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


def bad_label(tmp_path):
  labels = {'train-labels-idx1-ubyte': idx(np.arange(20))}
  return write_folder(tmp_path / 'idx', idx_files() | labels)


@pytest.mark.parametrize(
  ('make', 'args', 'message'),
  [
    (cut_outside, ['imagenet64'], 'ends early'),
    (lacking, ['imagenet64'], 'lacks 1 (n01443537) of 4 classes'),
    (unknown, ['imagenet64'], "holds 1 (n99999999), outside imagenet2012's 4 classes"),
    (bad_label, ['mnist'], 'label 19, outside its 10 classes'),
    (one_class, ['pets', '--size', 8], 'holds 1 class folders (cats)'),
    (own, ['pets', '--size', 'x'], 'flag --size=x: invalid literal'),
    (own, [], 'give one name to prepare'),
  ],
)
def test_the_command_ends_in_one_line_and_code_2_and_keeps_what_is_prepared(
  make, args, message, tmp_path, imagenet_of_four, call
):
  first = call(
    *(prepare, 'mine', '--size', 8, '--workers', 1),
    *('--source', own(tmp_path, name='mine'), '--data_dir', tmp_path / 'data'),
  )
  assert first.returncode == 0, first.stderr
  (tmp_path / 'in').mkdir()
  source = make(tmp_path / 'in')
  before = {p: p.is_dir() or p.read_bytes() for p in tmp_path.rglob('*')}
  done = call(prepare, *args, '--source', source, '--data_dir', tmp_path / 'data')
  assert done.returncode == 2
  assert message in done.stderr and done.stderr.count('\n') == 1, done.stderr
  assert {p: p.is_dir() or p.read_bytes() for p in tmp_path.rglob('*')} == before


def test_kill_9_costs_only_the_shards_at_work(tmp_path, monkeypatch):
  source = write_folder(tmp_path / 'in', {f'{i % 2}/{i:03}.jpg': jpeg(i % 20) for i in range(600)})
  command = (
    'from cfg_jax import cli; from cfg_jax.datasets import prepare, sources; '
    'sources.SHARD_BYTES = 1; sources.MAX_SHARDS = 150; prepare.define_flags(); '
    'cli.run(prepare.main)'
  )
  args = ['pets', '--size=48', f'--source={source}', f'--data_dir={tmp_path / "killed"}']
  command = [sys.executable, '-c', command, *args, '--workers=2']
  folder, journal = tmp_path / 'killed/pets/1.0.0', 'train.shards.jsonl'
  process = subprocess.Popen(command)
  while not (folder / journal).exists() or (folder / journal).read_text().count('\n') < 4:
    assert process.poll() is None
    time.sleep(0.005)
  process.send_signal(signal.SIGKILL)
  process.wait()
  lines = [json.loads(line) for line in (folder / journal).read_text().splitlines()[1:]]
  done = {line['job']: (folder / line['job']).stat().st_mtime_ns for line in lines}
  assert 3 <= len(done) < 150
  with (folder / journal).open('a') as file:
    file.write('{"job": "pe')  # a line torn by the kill

  time.sleep(0.3)  # the workers have ended with their parent: nothing is written any more
  before = sorted(p.name for p in folder.iterdir())
  time.sleep(0.3)
  assert sorted(p.name for p in folder.iterdir()) == before

  monkeypatch.setattr(sources, 'SHARD_BYTES', 1)
  monkeypatch.setattr(sources, 'MAX_SHARDS', 150)
  for data_dir in (tmp_path / 'killed', tmp_path / 'whole'):
    assert run('pets', '--source', source, '--data_dir', data_dir, '--size', 48) == 0
  assert len([json.loads(line) for line in (folder / journal).read_text().splitlines()]) == 151
  assert done.items() < {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}.items()
  assert not list(folder.glob('*partial*'))
  killed, whole = (
    datasets.get('pets', tmp_path / d).open(tmp_path / d, 'train') for d in ('killed', 'whole')
  )
  assert len(killed) == 600
  assert datasets.fingerprint(killed) == datasets.fingerprint(whole)
  assert all((killed[i]['image'] == whole[i]['image']).all() for i in range(0, 600, 7))
