"""Pairs beside ∅, by name on the command: a weaker network, another class, or all."""

import dataclasses

import jax
import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.generate import __main__ as generate
from cfg_jax.generate.store import sample_sets
from cfg_jax.methods import drawing, guides
from cfg_jax.methods.owners import OWNERS
from cfg_jax.plan import cost
from tests.generate.test_guide import images_of, random_run

FEW = ['sample.num_samples=8', 'sample.sampler.num_steps=4', 'sample.labels=3']


@pytest.fixture
def network(tiny, tmp_path):
  random_run(tiny, tmp_path / 'run', 0)
  return tmp_path / 'run'


@pytest.fixture
def drawn(network, call):
  """The images of some settings, for each w."""

  def draw(*texts):
    done = call(
      generate, '--workdir', str(network), *(x for s in [*FEW, *texts] for x in ('--set', s))
    )
    assert done.returncode == 0, done.stderr
    return images_of(network, config_lib.change(config_lib.of_run(network), [*FEW, *texts]))

  return draw


@pytest.mark.slow
def test_a_weaker_network(network, drawn, tiny, tmp_path):
  """Oneself is no weaker: nothing is guided. Another run, or a checkpoint by its step, guides."""
  random_run(tiny, tmp_path / 'weak', 1)
  before = random_run(tiny, tmp_path / 'other', 2)
  checkpoints = Checkpoints(tmp_path / 'weak', keep=2)
  checkpoints.save(5, jax.device_put({'step': np.int32(5), 'ema': before}), {})
  checkpoints.close()
  pair = 'sample.guidance.pair=autoguidance'

  def guided(folder, *texts):
    return drawn(pair, f'sample.guidance.guide={folder}', *texts)

  [plain] = drawn('sample.guidance.w=0')
  zero, own = guided(network, 'sample.guidance.w=0,3')
  np.testing.assert_array_equal(zero, plain)
  assert np.abs(own.astype(int) - plain).max() <= 1
  newest, third, other = (
    guided(tmp_path / folder, 'sample.guidance.w=3', f'sample.guidance.guide_step={step}')[0]
    for folder, step in (('weak', 0), ('weak', 3), ('other', 0))
  )
  np.testing.assert_array_equal(newest, other)
  for a, b in ((newest, third), (newest, plain), (third, plain)):
    assert (a != b).mean() > 0.05
  texts = [pair, f'sample.guidance.guide={tmp_path / "weak"}']
  names = [
    sample_sets(config_lib.change(tiny, [*texts, f'sample.guidance.guide_step={step}']).sample, 3)[
      0
    ].path
    for step in (0, 5, 3)
  ]
  assert names[0] == names[1] != names[2]


def test_a_plan_counts_the_weaker_network(network):
  """As one more call of the network, and no gradients."""
  texts = ['sample.guidance.pair=autoguidance', f'sample.guidance.guide={network}']
  config = config_lib.change(config_lib.of_run(network), texts)
  steps = config.sample.sampler.num_steps
  assert [cost.image_calls(config, w) for w in (0.0, 1.0)] == [steps, 2 * steps]
  assert cost.guide_calls(config) == 0


@pytest.mark.slow
def test_away_from_another_class(drawn):
  [plain] = drawn('sample.guidance.w=0')
  pair = 'sample.guidance.pair=contrast'
  [itself] = drawn(pair, 'sample.guidance.against=3', 'sample.guidance.w=3')
  [other] = drawn(pair, 'sample.guidance.against=5', 'sample.guidance.w=3')
  assert np.abs(itself.astype(int) - plain).max() <= 1 and (other != plain).mean() > 0.05


@pytest.mark.slow
def test_a_rule_by_name_with_its_knob(drawn):
  """Outside the grid an interval guides nothing, and names another set than one that does."""
  [plain] = drawn('sample.guidance.w=0')
  rule = 'sample.guidance.rule=interval'
  [none] = drawn(rule, 'sample.guidance.lo=30', 'sample.guidance.hi=31', 'sample.guidance.w=3')
  [some] = drawn(rule, 'sample.guidance.w=3')
  np.testing.assert_array_equal(none, plain)
  assert (some != plain).mean() > 0.05


@pytest.mark.parametrize('part, name', [('rule', 'feedback'), ('pair', 'classes')])
def test_what_looks_back_is_for_a_solver_that_tells(tiny, part, name):
  config = config_lib.change(tiny, [f'sample.guidance.{part}={name}'])
  config_lib.check(config, OWNERS, 1)
  config = config_lib.change(config, ['sample.sampler.name=ddim'])
  said = f"sample.sampler.name='ddim' does not tell the {part} {name} how likely its steps are: use"
  with pytest.raises(UserError, match=said) as error:
    config_lib.check(config, OWNERS, 1)
  assert '\n' not in str(error.value)


def test_all_classes_take_as_many_calls_and_no_null(tiny, monkeypatch):
  config = config_lib.change(tiny, ['sample.guidance.pair=classes'])
  steps = config.sample.sampler.num_steps
  assert [cost.image_calls(config, w) for w in (0.0, 1.0)] == [steps, 10 * steps]
  config.method.p_uncond = 0.0
  drawing.check_guidance(config, [0.0, 2.0])
  config.method.p_uncond = 1.0
  with pytest.raises(UserError, match='sample.guidance.pair=classes .* asks for classes, which'):
    drawing.check_guidance(config, [0.0])
  one = dataclasses.replace(registry.of(config.data), num_classes=1)
  monkeypatch.setattr(registry, 'of', lambda data: one)
  [(field, remedy)] = guides.problems(config)
  assert field == 'pair' and 'needs two classes or more' in remedy


@pytest.mark.slow
def test_all_classes_by_name(drawn):
  unguided, guided = drawn('sample.guidance.pair=classes', 'sample.guidance.w=0,3')
  assert (guided != unguided).mean() > 0.05


@pytest.mark.parametrize(
  'texts, said',
  [
    (['pair=contrast', 'against=10'], 'sample.guidance.against=10 is none of the classes 0 to 9'),
    (['pair=contrast', 'against=1.5'], 'must be a whole number'),
    (['pair=autoguidance'], 'must name the run of a weaker network'),
    (['pair=autoguidance', 'guide=RUN', 'guide_step=7'], 'is none of its checkpoints, [3]'),
    (['pair=autoguidance', 'guide=/nowhere'], 'cannot guide'),
    (['rule=interval', 'lo=4'], 'sample.guidance.hi=2.55 must be over lo=4'),
    (['rule=rescale', 'phi=2'], 'sample.guidance.phi=2.0 must be in [0, 1]'),
    (['lo=1'], 'the config has no such field'),
  ],
)
def test_what_is_wrong_is_one_line(network, call, texts, said):
  texts = [f'sample.guidance.{t}'.replace('RUN', str(network)) for t in texts]
  done = call(generate, '--workdir', str(network), *(x for s in texts for x in ('--set', s)))
  assert done.returncode and said in done.stderr and done.stderr.count('\n') == 1, done.stderr
