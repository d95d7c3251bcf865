"""Every mistake in a config is told, all at once, in one line each."""

import re

import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.nets import unet
from tests.conftest import load_config, run

WRONG = {
  'method.p_uncond': (7.0, 'is a probability'),
  'diffusion.lambda_min': (30.0, 'must be less than diffusion.lambda_max=20.0'),
  'sample.sampler.quantile': (1.5, r'must be in \[0, 1\]'),
  'sample.sampler.num_steps': (1, 'must be at least 2'),
  'sample.guidance.w': ((), 'must name at least one'),
  'sample.labels': ('12', "'balanced', 'random' or one class, '0' to '9'"),
  'train.batch_size': (100, 'must be a multiple of 8 devices; try 96'),
  'train.learning_rate': (0.0, 'must be positive'),
  'train.ema_decay': (1.0, r'must be in \[0, 1\)'),
  'data.name': ('digit', "'digit' is none of digits, mnist"),
  'model.channels': (
    24,
    r'× channel_mults gives \[24\], not divisible by model.norm_groups=16',
  ),
  'model.attention_resolutions': (
    (4, 16),
    r'has \[16\], which never occur: the levels are \[8, 4\]',
  ),
  'model.channel_mults': ((1, 1, 1, 1, 1), 'halves 8 pixels 4 times'),
  'model.num_heads': (3, 'and model.head_channels=48: give exactly one'),
  'model.dtype': ('float16', "must be 'float32' or 'bfloat16'"),
  'evaluate.extractor': ('vgg', "must be 'digits', 'inception', MODULE:CLASS or the folder of a"),
}


@pytest.mark.parametrize('field', WRONG)
def test_one_wrong_field_gives_one_line_with_its_name_value_and_remedy(field, data_dir):
  value, remedy = WRONG[field]
  config = load_config('digits', **{'data.dir': str(data_dir), field: value})
  with pytest.raises(ValueError, match=remedy) as error:
    config_lib.check(config, OWNERS, 8)
  lines = [line for line in str(error.value).splitlines() if line.startswith(f'{field}=')]
  assert len(lines) == 1 and str(value) in lines[0]


def test_all_problems_are_told_at_once(data_dir):
  wrong = {field: value for field, (value, _) in WRONG.items() if field.startswith('train')}
  config = load_config('digits', **{'data.dir': str(data_dir), 'sample.batch_size': 256} | wrong)
  with pytest.raises(ValueError) as error:
    config_lib.check(config, OWNERS, 8)
  assert len(str(error.value).splitlines()) == len(wrong)


@pytest.mark.parametrize('num_devices', (1, 2))
def test_the_digits_config_is_right(num_devices, data_dir):
  config_lib.check(load_config('digits', **{'data.dir': str(data_dir)}), OWNERS, num_devices)


@pytest.mark.parametrize(
  'flags, says',
  [
    (
      ['--set', 'method.p_uncond=7', '--config.sample.sampler.rho=0'],
      r'method.p_uncond=7.0 .*\nsample.sampler.rho=0.0 .*',
    ),
    (['--set=method.p_uncon=0.2'], 'no such field. Did you mean method.p_uncond?'),
    (
      ['--config.train.num_steps=1.5'],
      'num_steps=1.5 must be a whole number, at least 1',
    ),
    (['--set', 'seed'], 'must be FIELD=VALUE'),
    (['--set', 'train=1'], 'train: the config has no such field'),
    (['config.train.num_steps=5'], "'config.train.num_steps=5' is left over"),
    (['--confg=x'], '--confg is no flag of this command; did you mean --config?'),
  ],
)
def test_bad_flags_end_the_command_with_code_2_and_no_traceback(flags, says, tmp_path):
  workdir = tmp_path / 'run'
  done = run('cfg_jax.train', '--config', 'configs/digits.py', '--workdir', str(workdir), *flags)
  assert done.returncode == 2, done.stderr
  assert 'Traceback' not in done.stderr
  assert re.search(says, done.stderr), done.stderr
  assert not workdir.exists()


def test_a_config_file_that_is_not_there(tmp_path):
  done = run('cfg_jax.train', '--config', 'configs/nope.py', '--workdir', str(tmp_path / 'run'))
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  assert 'configs/nope.py' in done.stderr


def test_a_recorded_config_is_read_back_as_it_was(tiny, tmp_path):
  config_lib.record(tiny, tmp_path)
  read = config_lib.of_run(tmp_path)
  assert unet.of(read) == unet.of(tiny)
  config_lib.record(read, tmp_path)  # no difference: lists are tuples again
  with pytest.raises(ValueError, match='holds no run'):
    config_lib.of_run(tmp_path / 'nothing')
