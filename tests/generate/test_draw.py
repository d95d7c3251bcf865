"""Samples on disk: exact per index, resumable, one program for all w."""

import jax
import numpy as np
import pytest
from PIL import Image

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import files, pictures, sharding
from cfg_jax.data import kinds
from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.generate import draw as generate
from cfg_jax.generate.identity import settings_of
from cfg_jax.generate.store import SampleSet, sample_sets
from cfg_jax.methods import drawing
from cfg_jax.train import loop as train
from tests.conftest import TINY, load_config, run

SETTINGS = settings_of(load_config('digits').sample.to_dict(), 1, 1.0)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data_dir):
  """A run of a few steps: its images are noise, but each is a function of its index."""
  config = load_config('digits', **TINY, **{'data.dir': str(data_dir)})
  workdir = tmp_path_factory.mktemp('run')
  train.train(config, workdir)
  return workdir


@pytest.fixture
def config(trained):
  return config_lib.of_run(trained)


def images_of(workdir, sample_set, n):
  return np.concatenate([images for images, _ in sample_set.read(workdir, n)])


@pytest.mark.parametrize('batch_size', (1, 7))
def test_images_do_not_depend_on_the_batch_they_are_in(trained, config, tmp_path, batch_size):
  """The same image from a batch of 8 and of any other size, up to one grey level of rounding."""
  step = generate.generate(config, trained)
  config.sample.batch_size = batch_size
  (tmp_path / 'checkpoints').symlink_to(trained / 'checkpoints')
  generate.generate(config, tmp_path)
  for sample_set in sample_sets(config.sample, step):
    a, b = (images_of(w, sample_set, 20).astype(int) for w in (trained, tmp_path))
    assert np.abs(a - b).max() <= 1 and (a != b).mean() < 0.01
    assert len(np.unique(a, axis=0)) == 20


def test_what_is_on_disk_is_not_drawn_again(trained, config):
  step = generate.generate(config, trained)
  sample_set = sample_sets(config.sample, step)[1]
  files = sorted((trained / sample_set.path).glob('*.npz'))
  before = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in files}
  lost = files[1]
  lost.unlink()
  generate.generate(config, trained)
  for file, (mtime, data) in before.items():
    assert file.read_bytes() == data
    assert (file.stat().st_mtime_ns == mtime) == (file != lost)


def test_more_samples_are_added_to_those_there(trained, config):
  step = generate.generate(config, trained)
  first = {s.w: images_of(trained, s, 20) for s in sample_sets(config.sample, step)}
  config.sample.num_samples = 23
  generate.generate(config, trained)
  for sample_set in sample_sets(config.sample, step):
    more = images_of(trained, sample_set, 23)
    np.testing.assert_array_equal(more[:20], first[sample_set.w])
    assert sample_set.present(trained) == set(range(23))


def test_one_program_serves_every_w_and_seed_and_mixed_ones(config):
  mesh = sharding.data_mesh()
  draw = drawing.make_sampler(config, mesh)
  params = jax.jit(methods.make(config, mesh).init)(0).ema
  indices, seed = np.arange(8, dtype=np.int32), np.uint32(config.sample.seed)
  images = {}
  for w in (0.0, 1.0, 4.0):
    images[w] = np.asarray(draw(params, indices, indices, {'w': np.full(8, w, np.float32)}, seed))
  mix = {'w': np.array([0, 1, 4, 0, 1, 4, 0, 1], np.float32)}
  mixed = np.asarray(draw(params, indices, indices, mix, seed))
  for i, w in enumerate([0.0, 1.0, 4.0, 0.0, 1.0, 4.0, 0.0, 1.0]):
    assert np.abs(mixed[i].astype(int) - images[w][i]).max() <= 1
  other = np.asarray(draw(params, indices, indices, mix, np.uint32(2**32 - 1)))
  assert (other != mixed).mean() > 0.5
  assert draw._cache_size() == 1


def test_keys_are_those_of_the_seed_traced_or_not():
  indices = np.arange(3, dtype=np.int32)
  for seed in (0, 7, 2**31, 2**32 - 1):
    traced = jax.jit(drawing.sample_keys)(np.uint32(seed), indices)
    alone = [jax.random.fold_in(jax.random.key(seed), i) for i in indices]
    expected = np.stack([jax.random.key_data(key) for key in alone])
    np.testing.assert_array_equal(jax.random.key_data(traced), expected)


def test_a_gap_is_an_error_and_not_the_images_behind_it(trained, config, tmp_path):
  [sample_set] = sample_sets(config.sample, 1)[:1]
  images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int32)
  for first in (0, 8):
    sample_set.write(tmp_path, first, images + first, labels)
  with pytest.raises(ValueError, match='has 4 of 8 samples'):
    list(sample_set.read(tmp_path, 8))


def test_parts_drawn_by_several_jobs_give_the_numbers_of_the_whole(trained, config, tmp_path):
  """Every number of a cell is the same, to the last bit, from one job and from three."""
  (tmp_path / trained.name).mkdir()
  split = tmp_path / trained.name
  (split / 'checkpoints').symlink_to(trained / 'checkpoints')
  step = generate.generate(config, trained)
  for part in (range(13, 20), range(6), range(6, 13)):  # in any order
    with pytest.raises(ValueError, match='of 20 samples'):
      evaluate.evaluate(config, split, step)
    generate.generate(config, split, step, part)
  for folder in (trained, split):
    evaluate.evaluate(config, folder, step)
  lines = [(folder / 'evals.jsonl').read_text() for folder in (trained, split)]
  assert lines[0] == lines[1] and lines[0].count('\n') == 2


@pytest.mark.parametrize('cuts', ((0, 33), (0, 7, 9, 20, 33), (0, 1, 2, 33)))
def test_batches_read_do_not_depend_on_the_files(tmp_path, cuts):
  sample_set = SampleSet(SETTINGS)
  for first, stop in zip(cuts, cuts[1:]):
    i = np.arange(first, stop)
    sample_set.write(tmp_path, first, i.astype(np.uint8)[:, None], i)
  for n in (1, 10, 33):
    for size in (1, 5, 10, 40):
      batches = list(sample_set.read(tmp_path, n, size))
      assert [len(x) for x, _ in batches] == [min(size, n - k) for k in range(0, n, size)]
      for j in (0, 1):
        np.testing.assert_array_equal(np.concatenate([b[j].ravel() for b in batches]), np.arange(n))


def test_labels():
  indices = np.arange(1000)
  balanced = kinds.choose('balanced', 0, indices, 10)
  assert (np.bincount(balanced) == 100).all()
  drawn = kinds.choose('random', 0, indices, 10)
  assert (np.abs(np.bincount(drawn) - 100) < 40).all() and len(set(drawn)) == 10
  np.testing.assert_array_equal(kinds.choose('random', 0, indices[500:], 10), drawn[500:])
  assert not np.array_equal(kinds.choose('random', 1, indices, 10), drawn)
  assert set(kinds.choose('7', 0, indices, 10)) == {7}


def test_the_grid_has_classes_as_rows_and_w_as_columns(trained, config):
  step = generate.generate(config, trained)
  sets = sample_sets(config.sample, step)
  grid = np.asarray(Image.open(trained / sets[0].path / '..' / 'grid.png'))
  drawn = np.stack([images_of(trained, s, 10) for s in sets], axis=1)  # balanced: index = class
  strengths = [f'{"w = " if k == 0 else ""}{s.w:g}' for k, s in enumerate(sets)]
  expected = pictures.labelled(pictures.enlarge(drawn, 32), '0123456789', strengths, gap=2)
  np.testing.assert_array_equal(grid, expected[..., 0])


def test_how_long_an_image_took_is_left_beside_its_set(trained, config, tmp_path):
  (tmp_path / 'checkpoints').symlink_to(trained / 'checkpoints')
  step = generate.generate(config, tmp_path)
  sets = sample_sets(config.sample, step)
  speeds = [files.read_json(tmp_path / s.path / 'speed.json') for s in sets]
  # All but those of the batch that was compiled.
  compiled = generate.images_at_once(config.sample, jax.device_count())
  assert sum(s['images'] for s in speeds) == 2 * config.sample.num_samples - compiled
  assert all(0 < s['seconds_per_image'] < 60 and s['device'] for s in speeds)


def test_the_command_and_its_complaints(trained, tmp_path):
  done = run('cfg_jax.generate', '--workdir', str(trained), '--w', '2', '--num_samples', '3')
  assert done.returncode == 0, done.stderr
  assert list(trained.glob('samples/*/w=2-*/00000000-00000003.npz'))
  for flags, says in (
    (['--workdir', str(tmp_path)], 'holds no run'),
    (['--workdir', str(trained), '--w', '1,x'], "sample.guidance.w=1,x: 'x' is not a number"),
    (['--workdir', str(trained), '--w', '1,nan'], 'must be finite numbers'),
    (['--workdir', str(trained), '--set', 'sample.labels=10'], "sample.labels='10'"),
    (['--workdir', str(trained), '--set', 'sample.sampler.v=2'], 'sample.sampler.v=2.0'),
    (['--workdir', str(trained), '--config.sample.sampler.v=2'], 'sample.sampler.v=2.0'),
    (['--workdir', str(trained), '--set', 'sample.guidance.rule=x'], 'none of classifier_free'),
    (['--workdir', str(trained), 'sample.seed=1'], "'sample.seed=1' is left over"),
    (['--workdir', str(trained), '--step', '77'], '77'),
  ):
    done = run('cfg_jax.generate', *flags)
    assert done.returncode == 2 and says in done.stderr, (flags, done.stderr)
    assert 'Traceback' not in done.stderr
