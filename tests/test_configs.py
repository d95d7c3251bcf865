"""The configs on disk: valid, of one structure, and with the paper's and ADM's numbers."""

import jax
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.equations import samplers
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.nets import unet
from cfg_jax.papers.cfg import tables as paper
from tests.conftest import ROOT, load_config

NUM_PARAMETERS = {
  'digits': 1_856_017,
  'mnist': 1_371_361,
  'fashion_mnist': 1_371_361,
  'fashion_mnist_small': 984_865,
  'cifar10': 42_861_059,
  'imagenet64': 295_900_035,  # ADM's 295 904 454, with 3 outputs for 6 and 1001 classes for 1000
  'imagenet128': 421_523_715,  # ADM's 421 529 606, likewise
}
BOTH = {
  'data.flip': True,
  'model.attention_resolutions': (32, 16, 8),
  'model.norm_groups': 32,
  'model.dtype': 'bfloat16',
  'diffusion.lambda_min': -20,
  'diffusion.lambda_max': 20,
  'method.p_uncond': 0.1,
  'train.warmup_steps': 1000,
  'train.adam_b1': 0.9,
  'train.adam_b2': 0.999,
  'train.grad_clip': 1,
  'train.ema_decay': 0.9999,
  'sample.sampler.clip_x': True,
  'sample.num_samples': 50_000,
  'sample.ema': True,
  'evaluate.extractor': 'inception',
}
PAPER = {
  'imagenet64': BOTH
  | {
    'model.channels': 192,
    'model.channel_mults': (1, 2, 3, 4),
    'model.num_blocks': 3,
    'model.head_channels': 64,
    'model.num_heads': None,
    'model.dropout': 0.1,
    'train.batch_size': 2048,
    'train.learning_rate': 3e-4,
    'train.num_steps': 400_000,
    'sample.sampler.v': 0.3,
  },
  'imagenet128': BOTH
  | {
    'model.channels': 256,
    'model.channel_mults': (1, 1, 2, 3, 4),
    'model.num_blocks': 2,
    'model.head_channels': None,
    'model.num_heads': 4,
    'model.dropout': 0.0,
    'train.batch_size': 256,
    'train.learning_rate': 1e-4,
    'train.num_steps': 2_700_000,
    'sample.sampler.v': 0.2,
  },
}


def flat(config):
  paths = jax.tree_util.tree_flatten_with_path(
    config.to_dict(), is_leaf=lambda x: x is None or isinstance(x, tuple)
  )[0]
  return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf for path, leaf in paths}


def structure(config):
  """Its fields, but for the knobs of the solver and the grid that it names."""
  knobs = set(config.sample.sampler) - set(samplers.COMMON)
  return set(flat(config)) - {f'sample.sampler.{knob}' for knob in knobs}


def test_all_configs_are_tested():
  files = {path.stem for path in (ROOT / 'configs').glob('*.py')} - {'__init__'}
  assert files == NUM_PARAMETERS.keys()


@pytest.mark.parametrize('name', NUM_PARAMETERS)
def test_valid_on_one_and_eight_devices_and_of_the_structure_of_digits(name):
  config = load_config(name)
  for num_devices in (1, 8):
    config_lib.check(config, OWNERS, num_devices)
  assert structure(config) == structure(load_config('digits'))
  assert config.data.name == name.removesuffix('_small')


@pytest.mark.parametrize('name', NUM_PARAMETERS)
def test_number_of_parameters(name):
  network = unet.of(load_config(name))
  assert unet.num_parameters(network) == NUM_PARAMETERS[name]


@pytest.mark.parametrize('name', PAPER)
def test_the_papers_numbers(name):
  config = flat(load_config(name))
  assert {field: config[field] for field in PAPER[name]} == PAPER[name]
  for curve in paper.curves(name):
    assert config['sample.guidance.w'] == curve.w
  columns = {curve.table.field: [] for curve in paper.curves(name)}
  for curve in paper.curves(name):
    columns[curve.table.field].append(curve.value)
  assert all(config[field] in columns[field] for field in columns)


def test_a_config_that_starts_from_another_leaves_it_as_it_was():
  before = load_config('imagenet64').to_json()
  load_config('imagenet128'), load_config('cifar10')
  assert load_config('imagenet64').to_json() == before
