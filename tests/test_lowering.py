"""The paper's training step and sampler lower for accelerators that this machine does not have."""

import json

import pytest

from tests.conftest import run


@pytest.mark.slow
@pytest.mark.parametrize('name', ['imagenet64', 'imagenet128'])
def test_the_step_and_the_sampler_lower_for_cuda_and_tpu_on_eight_devices(name):
  done = run('tests.lowering', name, JAX_NUM_CPU_DEVICES='8')
  assert done.returncode == 0, done.stderr
  step, sampler = map(json.loads, done.stdout.splitlines())
  print(step, sampler, sep='\n')
