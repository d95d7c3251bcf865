"""The paper's training step and sampler lower for accelerators that this machine does not have."""

import json

import pytest

from cfg_jax.data import registry
from tests.conftest import load_config, run


@pytest.mark.slow
@pytest.mark.parametrize('name', ['imagenet64', 'imagenet128'])
def test_the_step_and_the_sampler_lower_for_cuda_and_tpu_on_eight_devices(name):
  done = run('tests.lowering', name, JAX_NUM_CPU_DEVICES='8')
  assert done.returncode == 0, done.stderr
  print(done.stdout)  # the seconds, where pytest is run with -s
  step, sampler = map(json.loads, done.stdout.splitlines())
  for program in (step, sampler):
    assert program['devices'] == 8 and program['platforms'] == ['cuda', 'tpu']
    assert program['convolutions'].keys() == {'bf16'}
  assert step['barriers'] > 0 and sampler['barriers'] == 0  # remat, where there are gradients
  config = load_config(name)
  shape = (config.sample.batch_size, *registry.of(config.data).image_shape)
  assert sampler['output'] == f'uint8[{",".join(map(str, shape))}]'
