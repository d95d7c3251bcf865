"""Weights inside the package: what they are, what they draw, and how they are made."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from cfg_jax.core import config as config_lib
from cfg_jax.evaluate.extractors.digits import DigitsExtractor
from cfg_jax.generate import __main__ as generate
from cfg_jax.generate import draw, explore, pretrained
from cfg_jax.generate.store import sample_sets
from cfg_jax.train.loop import train
from experiments import make_pretrained


@pytest.fixture
def run_of_a_few_steps(tiny, tmp_path):
  train(tiny, tmp_path / 'run')
  return tmp_path / 'run'


def test_the_digits_are_digits():
  """At w = 1 the classifier of FD-digits sees in 40 images what was asked for, but for two."""
  model = explore.load_pretrained('digits')
  images = np.concatenate([explore.render(1.0, seed, model) for seed in range(4)])
  assert images.shape == (40, 8, 8, 1)
  seen = DigitsExtractor()(images)['logits'].argmax(1)
  assert (seen == np.tile(np.arange(10), 4)).sum() >= 38


def test_a_picture_and_nothing_else(call, tmp_path):
  flags = ('--pretrained', 'digits', '--w', '0,4', '--set', 'sample.sampler.num_steps=4')
  done = call(generate, *flags, '--out', tmp_path / 'grid.png')
  assert done.returncode == 0, done.stderr
  assert [path.name for path in tmp_path.iterdir()] == ['grid.png']
  with Image.open(tmp_path / 'grid.png') as grid:
    assert grid.height >= 10 * 32 and grid.width >= 2 * 32  # ten classes, two w


def test_a_run_of_them_is_a_run_like_others(call, tmp_path):
  """Image i is that of `explore`, twice the same command is no error, another folder is."""
  workdir, settings = tmp_path / 'run', ['--set', 'sample.sampler.num_steps=4', '--num_samples=3']
  for _ in range(2):
    done = call(
      generate, '--pretrained=digits', f'--workdir={workdir}', '--w=2', '--labels=7', *settings
    )
    assert done.returncode == 0, done.stderr
  config = config_lib.of_run(workdir)
  config.sample.sampler.num_steps, config.sample.labels = 4, '7'
  config.sample.guidance.w = (2.0,)
  weights = pretrained.read('digits')
  [sample_set] = sample_sets(config.sample, weights.step)
  images, labels = next(sample_set.read(workdir, 3))
  assert set(labels) == {7} and len(np.unique(images, axis=0)) == 3
  model = explore.load_pretrained('digits', 'sample.sampler.num_steps=4')
  for i in range(3):
    shown = explore.render(2.0, i, model, classes=[7])[0]
    assert np.abs(shown.astype(int) - images[i]).max() <= 1
  assert json.loads((workdir / pretrained.MARK).read_text()) == weights.source
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'file').touch()
  done = call(generate, '--pretrained=digits', f'--workdir={tmp_path / "other"}')
  assert done.returncode == 2 and 'is not empty: name a new one' in done.stderr


def test_a_start_that_was_cut_short_is_begun_again(tmp_path):
  pretrained.make_run('digits', tmp_path)
  (tmp_path / 'config.json').unlink()
  pretrained.make_run('digits', tmp_path)
  assert config_lib.of_run(tmp_path).data.name == 'digits'


def test_the_command_makes_them_and_says_what_the_rounding_does(call, run_of_a_few_steps, tmp_path):
  path = tmp_path / 'new.npz'
  done = call(make_pretrained, f'--workdir={run_of_a_few_steps}', f'--out={path}')
  assert done.returncode == 0, done.stderr
  back = pretrained.unpack(path.read_bytes())
  assert back.step == 12 and f'pretrained.py: {back.source["sha256"]}' in done.stdout
  assert len(re.findall(r'^  w=[\d.]+: at most \d+, [\d.]+ on average$', done.stdout, re.M)) == 2


def test_they_come_back_as_float16_rounds_them(run_of_a_few_steps):
  weights, params = make_pretrained.of_run(run_of_a_few_steps)
  data = pretrained.pack(weights)
  assert data == pretrained.pack(weights)
  back = pretrained.unpack(data)
  assert back.config.to_json() == weights.config.to_json() and back.step == 12
  assert back.source['run'] == 'run' and back.source['versions']['jax']
  assert back.weights.keys() == weights.weights.keys() and len(back.weights) > 20
  for name, x in back.weights.items():
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, np.float16(weights.weights[name]))
  kernel = pretrained.params(back, back.config)['network']['conv_in']['kernel']
  np.testing.assert_allclose(kernel, params['network']['conv_in']['kernel'], rtol=1e-3, atol=1e-7)


def test_a_damaged_file_is_refused(monkeypatch):
  monkeypatch.setitem(pretrained.SHA256, 'digits', 64 * '0')
  with pytest.raises(ValueError, match='digits.npz of the package has sha256 a0d1|has sha256'):
    pretrained.read('digits')


def test_bad_input_is_one_line(call, tmp_path):
  for flags, says in (
    (['--pretrained=letters', '--out=a.png'], '--pretrained=letters is none of digits'),
    (['--pretrained=digits'], 'Give --workdir, or --pretrained and --out'),
    (['--pretrained=digits', '--out=a.jpg'], '--out=a.jpg must end in .png'),
    (['--pretrained=digits', '--out=a.png', '--labels=11'], "sample.labels='11'"),
  ):
    done = call(generate, *flags)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count('\n') == 1


def test_the_batch_is_no_larger_than_what_is_asked_for(tiny, run_of_a_few_steps, monkeypatch):
  """16 images of a batch of 512 are computed as 16, and 600 as twice 300: but for the devices."""
  sizes = []
  make = draw.drawing.make_sampler

  def counted(*args, **beside):
    sampler = make(*args, **beside)

    def count(params, indices, *rest):
      sizes.append(len(indices))
      return sampler(params, indices, *rest)

    return count

  monkeypatch.setattr(draw.drawing, 'make_sampler', counted)
  tiny.sample.update(num_samples=16, batch_size=512)
  draw.generate(tiny, run_of_a_few_steps)
  assert sizes == [16, 16]  # w = 0 and 1
  for n, most, num_devices, size in (
    *((16, 512, 1, 16), (600, 512, 1, 300), (17, 512, 8, 24), (1000, 200, 2, 200)),
    *((1, 8, 1, 1), (1, 8, 8, 8), (20, 8, 1, 7), (50_000, 512, 8, 512)),
  ):
    tiny.sample.update(num_samples=n, batch_size=most)
    assert draw.images_at_once(tiny.sample, num_devices) == size
    assert size % num_devices == 0 and size <= most


def test_bits_of_the_digits_do_not_depend_on_the_batch():
  """Their network is narrow: on a CPU its convolutions round alike for any number of images."""
  model = explore.load_pretrained('digits', 'sample.sampler.num_steps=6')
  few = explore.render(1.0, 3, model, classes=[8, 2])
  many = explore.render(1.0, 3, model, classes=range(9, -1, -1))
  np.testing.assert_array_equal(few, many[[1, 7]])
