"""Samples guided by a classifier's run: what it changes, what they are called, what is refused."""

import functools
import shutil

import jax
import numpy as np
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import imported, sharding
from cfg_jax.generate import __main__ as generate
from cfg_jax.generate.store import sample_sets
from cfg_jax.plan import cost
from tests.conftest import load_config
from tests.methods.test_classifier import TINY as TINY_CLASSIFIER


def random_run(config, workdir, seed):
  method = methods.make(config, sharding.data_mesh(jax.devices()[:1]))
  random = np.random.default_rng(seed)
  shapes = jax.eval_shape(functools.partial(method.init, 0)).params
  params = jax.tree.map(lambda p: random.normal(0, 0.2, p.shape).astype(np.float32), shapes)
  imported.write(config, 3, params, workdir, {})
  return params


@pytest.fixture
def guide(data_dir, tmp_path):
  """(its config, a function that makes its run at a folder with some fields changed)."""

  def make(name='guide', seed=1, **changes):
    config = load_config('classifier_digits', **TINY_CLASSIFIER, **{'data.dir': str(data_dir)})
    config = config.copy_and_resolve_references().unlock()
    config.update_from_flattened_dict(changes)
    random_run(config.lock(), tmp_path / name, seed)
    return tmp_path / name

  return make


@pytest.fixture
def network(tiny, tmp_path):
  """A run of the network, of random weights."""
  random_run(tiny, tmp_path / 'run', 0)
  return tmp_path / 'run'


def changed(workdir, guide, *changes, pair='classifier'):
  texts = [f'sample.guidance.pair={pair}', f'sample.guidance.guide={guide}', *changes]
  return config_lib.change(config_lib.of_run(workdir), texts)


def images_of(workdir, config, step=3):
  return [
    np.concatenate([x for x, _ in s.read(workdir, config.sample.num_samples)])
    for s in sample_sets(config.sample, step)
  ]


def test_what_is_drawn_is_guided_by_it(network, guide, call):
  """w = 0 is the unguided image to the bit, other w and other guides are other images."""
  folder, other = guide(), guide('other', seed=2)
  plain = config_lib.change(config_lib.of_run(network), ['sample.guidance.w=0'])
  run = ['--workdir', str(network), '--num_samples', '8']
  pair = ['--set', 'sample.guidance.pair=classifier']
  for more in (
    ['--w', '0'],
    [*pair, '--set', f'sample.guidance.guide={folder}', '--w', '0,30'],
    [*pair, '--set', f'sample.guidance.guide={other}', '--w', '30'],
  ):
    done = call(generate, *run, *more)
    assert done.returncode == 0, done.stderr
  few = 'sample.num_samples=8'
  [unguided] = images_of(network, config_lib.change(plain, [few]))
  zero, thirty = images_of(network, changed(network, folder, few, 'sample.guidance.w=0,30'))
  [of_other] = images_of(network, changed(network, other, few, 'sample.guidance.w=30'))
  np.testing.assert_array_equal(zero, unguided)
  assert (thirty != zero).mean() > 0.05 and (of_other != thirty).mean() > 0.05


def test_a_set_is_named_by_the_guides_weights_wherever_they_lie(network, guide, tmp_path):
  folder, other = guide(), guide('other', seed=2)
  shutil.copytree(folder, tmp_path / 'moved')
  names = [
    [s.path for s in sample_sets(changed(network, f).sample, 3)]
    for f in (folder, tmp_path / 'moved', other)
  ]
  assert names[0] == names[1]
  assert not {*names[0]} & {*names[2]}


def test_the_plan_counts_the_guides_gradients(network, guide):
  config = changed(network, guide(), pair='classifier')
  calls = config.sample.sampler.num_steps
  share = cost.guide_calls(config)
  assert 0.2 < share < 2
  assert cost.image_calls(config, 0.0) == calls
  assert cost.image_calls(config, 1.0) == pytest.approx(calls * (1 + share))
  unconditional = changed(network, config.sample.guidance.guide, pair='classifier_unconditional')
  assert cost.image_calls(unconditional, 0.0) == pytest.approx(calls * (1 + share))


@pytest.mark.parametrize(
  'changes, texts, said',
  [
    ({'method.noised': False}, (), 'has seen no noise (method.noised=false)'),
    ({'data.name': 'mnist'}, (), 'has images of 28×28×1, the network 8×8×1: name another'),
    ({'diffusion.lambda_max': 10.0}, (), 'has seen λ from -20 to 10, and samples are drawn from'),
    ({}, ('sample.guidance.rule=mean_shift',), "'mean_shift' and 'ddpm_shifted' go together"),
    ({}, ('sample.guidance.guide=',), "must name a classifier's run"),
    ({}, ('sample.guidance.guide=/nowhere',), 'cannot guide (--workdir=/nowhere holds no run'),
  ],
)
def test_a_guide_that_cannot_guide_is_one_line(network, guide, call, changes, texts, said):
  folder = guide(**changes)
  settings = ['sample.guidance.pair=classifier', f'sample.guidance.guide={folder}', *texts]
  done = call(generate, '--workdir', str(network), *(x for s in settings for x in ('--set', s)))
  assert done.returncode and said in done.stderr and done.stderr.count('\n') == 1, done.stderr
  assert not (network / 'samples').exists()


def test_other_mistakes_with_guides_are_one_line(network, guide, call, tmp_path):
  run, pair = ['--workdir', str(network)], 'sample.guidance.pair=classifier'

  def said(*texts):
    done = call(generate, *run, *(x for s in texts for x in ('--set', s)))
    assert done.returncode and done.stderr.count('\n') == 1, done.stderr
    return done.stderr

  unconditional = 'sample.guidance.pair=classifier_unconditional'
  assert 'must name a' in said(pair)
  itself = f'sample.guidance.guide={network}'
  assert 'is a run of classifier_free: name one of configs/classifier_' in said(pair, itself)
  folder = guide()
  given = f'sample.guidance.guide={folder}'
  (folder / 'checkpoints' / '3' / 'record' / 'metadata').write_text('{}')
  done = call(generate, *run, '--set', pair, '--set', given)
  assert done.returncode and 'No intact checkpoint' in done.stderr.splitlines()[-1]
  shutil.rmtree(folder / 'checkpoints')
  assert f'cannot guide ({folder} has no checkpoint: train first)' in said(pair, given)
  (folder / 'config.json').write_text('{')
  assert 'config.json is damaged' in said(pair, given)
  never = tmp_path / 'never'
  config = config_lib.change(config_lib.of_run(network), ['method.p_uncond=0'])
  random_run(config, never, 0)
  run = ['--workdir', str(never)]
  given = f'sample.guidance.guide={guide("again")}'
  assert 'with ∅, which this network has never seen' in said(unconditional, given)
  config = config_lib.change(config, ['method.p_uncond=1'])
  random_run(config, tmp_path / 'unconditional', 0)
  run = ['--workdir', str(tmp_path / 'unconditional')]
  line = said(pair, given)
  assert 'asks for classes, which this network has never seen' in line
  assert 'use --set sample.guidance.pair=null --w -1, or' in line
