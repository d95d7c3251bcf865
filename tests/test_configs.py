"""The configs on disk: valid, of one structure, and with the paper's and ADM's numbers."""

import jax
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.equations import samplers
from cfg_jax.evaluate import owners
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
  'classifier_digits': 846_826,
  'classifier_fashion_mnist': 324_586,
  'classifier_imagenet64': 65_438_568,  # as ADM's
  'classifier_imagenet128': 42_568_040,  # as ADM's
  'vdm_digits': 748_993,
  'vdm_cifar10': 30_583_299,
  'vdm_imagenet32': 123_161_603,
  'vdm_imagenet64': 238_627_843,
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
VDM = {  # its public configs
  'data.flip': False,
  'model.num_blocks': 32,
  'model.fourier': (7, 8),
  'model.dropout': 0.1,
  'diffusion.lambda_min': -5,
  'diffusion.lambda_max': 13.3,
  'method.p_uncond': 1,
  'method.num_steps': None,
  'method.levels': 256,
  'train.batch_size': 128,
  'train.num_steps': 10_000_000,
  'train.learning_rate': 2e-4,
  'train.warmup_steps': 100,
  'train.adam_b1': 0.9,
  'train.adam_b2': 0.99,
  'train.weight_decay': 0.01,
  'train.ema_decay': 0.9999,
  'sample.sampler.num_steps': 1000,
  'sample.sampler.v': 0,
}
CLASSIFIERS = {  # Dhariwal & Nichol 2021, Table 12, and their code
  'data.flip': True,
  'data.crop': True,
  'model.channels': 128,
  'model.attention_resolutions': (32, 16, 8),
  'model.head_channels': 64,
  'model.dropout': 0,
  'model.pool': 'attention',
  'method.noised': True,
  'train.adam_b1': 0.9,
  'train.adam_b2': 0.999,
  'train.rate_decay': 'linear',
  'train.warmup_steps': 0,
  'train.grad_clip': float('inf'),
  'train.num_steps': 300_000,
}
PAPER = {
  'vdm_cifar10': VDM | {'model.channels': 128},
  'vdm_imagenet32': VDM | {'model.channels': 256},
  'vdm_imagenet64': VDM | {'model.channels': 256, 'model.num_blocks': 64},
  'classifier_imagenet64': CLASSIFIERS
  | {
    'model.channel_mults': (1, 2, 3, 4),
    'model.num_blocks': 4,
    'model.lambda_embedding': 'adm_cosine',
    'method.times': 'adm_cosine',
    'train.batch_size': 1024,
    'train.learning_rate': 6e-4,
    'train.weight_decay': 0.2,
  },
  'classifier_imagenet128': CLASSIFIERS
  | {
    'model.channel_mults': (1, 1, 2, 3, 4),
    'model.num_blocks': 2,
    'model.lambda_embedding': 'adm_linear',
    'method.times': 'adm_linear',
    'train.batch_size': 256,
    'train.learning_rate': 3e-4,
    'train.weight_decay': 0.05,
  },
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
  """Its fields, but for those that it may lack, and the knobs of its solver and its grid."""
  sampler = config.sample.sampler if 'sample' in config else ()
  knobs = set(sampler) - set(samplers.COMMON)
  may_lack = {'data.held_out', 'data.crop', 'model.lambda_embedding'}
  return set(flat(config)) - {f'sample.sampler.{knob}' for knob in knobs} - may_lack


def test_all_configs_are_tested():
  files = {path.stem for path in (ROOT / 'configs').glob('*.py')} - {'__init__'}
  assert files == NUM_PARAMETERS.keys()


@pytest.mark.parametrize('name', NUM_PARAMETERS)
def test_valid_on_one_and_eight_devices_and_of_the_structure_of_digits(name):
  config = load_config(name)
  for num_devices in (1, 8):
    config_lib.check(config, owners.of(config), num_devices)
  same = {'classifier': 'classifier_digits', 'vdm': 'vdm_digits'}.get(config.method.name, 'digits')
  assert structure(config) == structure(load_config(same))
  assert config.data.name == name.removesuffix('_small').removeprefix('classifier_').removeprefix(
    'vdm_'
  )


@pytest.mark.parametrize('name', NUM_PARAMETERS)
def test_number_of_parameters(name):
  config = load_config(name)
  network = methods.network(config)
  assert network.num_parameters(network.of(config)) == NUM_PARAMETERS[name]


@pytest.mark.parametrize('name', PAPER)
def test_the_papers_numbers(name):
  config = flat(load_config(name))
  assert {field: config[field] for field in PAPER[name]} == PAPER[name]
  for curve in paper.curves(name):  # none for a classifier
    assert config['sample.guidance.w'] == curve.w
  columns = {curve.table.field: [] for curve in paper.curves(name)}
  for curve in paper.curves(name):
    columns[curve.table.field].append(curve.value)
  assert all(config[field] in columns[field] for field in columns)


def test_a_config_that_starts_from_another_leaves_it_as_it_was():
  names = ('imagenet64', 'classifier_imagenet64')
  before = [load_config(name).to_json() for name in names]
  load_config('imagenet128'), load_config('cifar10'), load_config('classifier_imagenet128')
  assert [load_config(name).to_json() for name in names] == before
