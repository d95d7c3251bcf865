"""A run of version 1, tests/golden/version1, becomes one of today's, and nothing is lost."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.generate import draw, store
from cfg_jax.generate.upgrade import upgrade
from tests.conftest import ROOT
from tests.recorded import FILE, machine

OLD = ROOT / 'tests' / 'golden' / 'version1' / 'half' / 'p_uncond=0.1'


@pytest.fixture
def workdir(tmp_path):
  return Path(shutil.copytree(OLD, tmp_path / OLD.name))


def contents(folder):
  return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def test_its_samples_and_lines_are_found_under_todays_settings(workdir):
  upgrade(workdir)
  config = config_lib.of_run(workdir)
  sets = store.sample_sets(config.sample, 8)
  [old_grid, *_] = OLD.glob('samples/**/grid.png')
  assert draw.grid_path(sets, workdir).read_bytes() == old_grid.read_bytes()
  old_lines = files.read_jsonl(OLD / 'evals.jsonl')
  lines = files.read_jsonl(workdir / 'evals.jsonl')
  for w, sample_set, old, line in zip((0, 1), sets, old_lines, lines, strict=True):
    [shard] = OLD.glob(f'samples/*/*/w={w}/*.npz')
    assert (workdir / sample_set.path / shard.name).read_bytes() == shard.read_bytes()
    settings = json.loads((workdir / sample_set.path / 'identity.json').read_text())
    assert settings == sample_set.settings and settings['sample']['guidance']['w'] == w
    assert line['samples'] == sample_set.path and line['metrics'] == old['metrics']
    assert line['settings']['method'] == {'name': 'classifier_free', 'p_uncond': 0.1}
    assert line['settings']['sample'] == settings['sample']
    assert (line['version'], line['seed'], line['distance']) == (3, 0, 'FD-digits')
  assert not list(workdir.glob('samples/step=8,ema'))


def test_generate_reads_its_checkpoint_and_draws_nothing_of_what_is_there(workdir):
  upgrade(workdir)
  before = contents(workdir)
  config = config_lib.of_run(workdir)
  assert draw.generate(config, workdir) == 8
  assert contents(workdir) == before
  config = config_lib.change(config, ['sample.guidance.w=0.5', 'sample.num_samples=1'])
  draw.generate(config, workdir)  # a w that its config, which had whole numbers, did not have
  [sample_set] = store.sample_sets(config.sample, 8)
  assert sample_set.present(workdir) == {0}


def test_its_checkpoint_gives_the_images_that_it_gave(workdir):
  upgrade(workdir)
  config = config_lib.of_run(workdir)
  sets = store.sample_sets(config.sample, 8)
  old = [np.concatenate([x for x, _ in s.read(workdir, 12)]) for s in sets]
  shutil.rmtree(workdir / 'samples')
  draw.generate(config, workdir)
  for sample_set, images in zip(sets, old):
    new = np.concatenate([x for x, _ in sample_set.read(workdir, 12)])
    if machine() == json.loads(FILE.read_text())['machine']:
      np.testing.assert_array_equal(new, images)
    else:
      assert np.abs(new.astype(int) - images).mean() < 1  # of 255
  assert (old[0] != old[1]).any()


def test_it_is_done_once(workdir):
  upgrade(workdir)
  before = contents(workdir)
  upgrade(workdir)
  assert contents(workdir) == before


@pytest.mark.parametrize('left_out', (None, 'w=1'))
def test_killed_anywhere_it_goes_on(tmp_path, monkeypatch, left_out):
  def copy(name):
    return Path(shutil.copytree(OLD, tmp_path / name, ignore=lambda *names: {left_out}))

  whole = copy('whole')
  upgrade(whole)
  interruptions = 0
  for steps in range(100):  # how many changes of the disk are made before the kill
    workdir = copy(str(steps))
    left = [steps]

    def counted(change, left=left):
      def changed(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
          raise KeyboardInterrupt
        return change(*args, **kwargs)

      return changed

    with monkeypatch.context() as patch:
      patch.setattr(Path, 'rename', counted(Path.rename))
      patch.setattr(Path, 'rmdir', counted(Path.rmdir))
      for name in ('write_json', 'write_text'):
        patch.setattr(files, name, counted(getattr(files, name)))
      try:
        upgrade(workdir)
      except KeyboardInterrupt:
        interruptions += 1
    upgrade(workdir)
    assert contents(workdir) == contents(whole)
    if left[0] >= 0:
      break
  assert interruptions > 4


def test_a_line_that_lacks_a_field_is_told(workdir):
  [first, second] = files.read_jsonl(workdir / 'evals.jsonl')
  del second['T']
  files.write_text(workdir / 'evals.jsonl', files.json_lines([first, second]))
  with pytest.raises(UserError, match="evals.jsonl: a line lacks 'T'; move the file away"):
    upgrade(workdir)
