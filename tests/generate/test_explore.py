"""One noise under any w: what `generate` draws, from one program."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.equations import knobs
from cfg_jax.equations.guidance import rules
from cfg_jax.generate import draw as generate
from cfg_jax.generate import explore
from cfg_jax.generate.store import sample_sets
from tests.conftest import TINY, load_config


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, data_dir):
  """A run whose network nobody trained; random where ADM's starts at 0, so that it hears c."""
  folder = tmp_path_factory.mktemp('run')
  config = load_config('digits', **TINY | {'data.dir': str(data_dir), 'sample.batch_size': 10})
  create = lambda: methods.make(config, sharding.data_mesh()).init(0).ema  # noqa: E731
  noise = np.random.default_rng(0)
  ema = jax.tree.map(
    lambda x: jnp.asarray(0.3 * noise.normal(size=x.shape), x.dtype), jax.eval_shape(create)
  )
  checkpoints = Checkpoints(folder, keep=1)
  checkpoints.save(7, {'step': jnp.int32(7), 'ema': ema}, {})
  checkpoints.close()
  config_lib.record(config, folder)
  return folder


@pytest.fixture(scope='module')
def model(workdir):
  return explore.load(workdir)


def differ(a, b):
  """The largest difference in grey levels; another batch may round to the next one."""
  return np.abs(a.astype(int) - b.astype(int)).max()


@pytest.mark.parametrize('w', (0.0, 1.5))
def test_it_draws_what_generate_draws(workdir, model, w):
  config = config_lib.of_run(workdir)
  config.sample.update(labels='3', num_samples=6)
  config.sample.guidance.w = (w,)
  step = generate.generate(config, workdir)
  [(images, labels)] = sample_sets(config.sample, step)[0].read(workdir, 6)
  assert model.step == step == 7 and set(labels) == {3}
  assert differ(explore.render(w, 5, model)[3], images[5]) <= 1
  assert differ(images[5], images[4]) > 1


def test_one_program_serves_every_w_and_seed(model):
  settings = [(w, seed) for w in (-1, 0, 0.0, 0.3, np.float64(1.0), 4.0) for seed in (0, 99)]
  drawn = [explore.render(w, seed, model) for w, seed in settings]
  assert model.draw._cache_size() == 1
  assert len({images.tobytes() for images in drawn}) == 10  # 0 and 0.0 are one w


def test_at_w_minus_1_the_class_is_not_heard(model):
  for w, heard in ((-1, False), (0, True)):
    images = explore.render(w, 2, model)
    assert (differ(images, images[:1]) > 1) == heard


def test_classes_in_any_order(model):
  turned = explore.render(2.0, 1, model, classes=range(9, -1, -1))
  assert differ(turned[::-1], explore.render(2.0, 1, model)) <= 1


def test_settings_of_the_sampler_can_be_changed(workdir, model):
  other = explore.load(workdir, 'sample.sampler.num_steps=5')
  assert other.config.sample.sampler.num_steps == 5
  assert differ(explore.render(1, 0, other), explore.render(1, 0, model)) > 1


def test_a_rule_and_its_knobs(workdir):
  """Within one program; an interval that covers none is no guidance, and one that covers all is."""
  other = explore.load(workdir, 'sample.guidance.rule=interval')
  plain = explore.load(workdir)
  at = lambda lo, hi: explore.render(2.0, 0, other, lo=lo, hi=hi)  # noqa: E731
  np.testing.assert_array_equal(at(30, 31.0), explore.render(0.0, 0, plain))
  np.testing.assert_array_equal(at(-21, 21), explore.render(2.0, 0, plain))
  np.testing.assert_array_equal(at(-2.13, 2.55), explore.render(2.0, 0, other))
  assert differ(at(-21, 21), at(-2, 2)) > 1 and other.draw._cache_size() == 1
  with pytest.raises(ValueError, match='sample.guidance.hi=2.55 must be over lo=3') as error:
    explore.render(2.0, 0, other, lo=3)
  assert '\n' not in str(error.value)


def test_the_rules_of_a_solver_and_the_sliders_of_a_rule(model):
  assert set(explore.rules_of(model)) == {*rules.RULES} - {'mean_shift'}
  config = config_lib.change(model.config, ['sample.sampler.name=ddim'])
  assert set(explore.rules_of(model._replace(config=config))) == {*rules.RULES} - {
    'mean_shift',
    'feedback',
  }
  for rule in rules.RULES:
    found = explore.knobs_of(rule)
    assert found.keys() == knobs.defaults(rules.RULES[rule]).keys()
    assert all(least <= value < most for value, least, most in found.values())
  assert explore.knobs_of('rescale') == {'phi': (0.7, 0, 1)}
  assert explore.knobs_of('interval')['lo'] == (-2.13, -22.13, 17.87)


def test_bad_input_is_one_line(workdir, model):
  for call, says in (
    (lambda: explore.render(1, 0, model, classes=[3, 10]), r'classes=\[3, 10\] must be some of 0'),
    (lambda: explore.render(1, 0, model, classes=[]), r'classes=\[\]'),
    (lambda: explore.load(workdir, 'sample.sampler.num_steps=1'), 'sample.sampler.num_steps=1'),
    (lambda: explore.load(workdir, step=8), 'no step 8; it has 7'),
    (lambda: explore.load(workdir / 'none'), 'holds no run'),
  ):
    with pytest.raises(ValueError, match=says) as error:
      call()
    assert '\n' not in str(error.value)


def test_guidance_needs_a_network_that_knows_the_null_class(model):
  config = load_config('digits', **TINY, **{'method.p_uncond': 0.0})
  with pytest.raises(ValueError, match='never seen'):
    explore.render(1, 0, model._replace(config=config))
  explore.render(0, 0, model._replace(config=config))


def test_the_picture_enlarges_each_pixel():
  rows = np.random.default_rng(0).integers(256, size=(2, 3, 8, 8, 1), dtype=np.uint8)
  png = np.asarray(Image.open(io.BytesIO(explore.picture(list(rows), pixels=20))))
  gap = (png.shape[1] - 3 * 16) // 2  # twice 8 is the most in 20; two gaps between three images
  assert png.shape == (2 * 16 + gap, 3 * 16 + 2 * gap, 2)  # grey, alpha
  last = png[16 + gap :, -16:]
  np.testing.assert_array_equal(last[::2, ::2, 0], rows[1, 2, ..., 0])
  np.testing.assert_array_equal(last[1::2, 1::2, 0], rows[1, 2, ..., 0])
