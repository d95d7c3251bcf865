"""The table of a device: every program's figures, on whatever JAX runs on here."""

import jax
import pytest

from experiments import device_table
from experiments.device_table import Row


@pytest.mark.slow
def test_step_and_sampler_of_a_config_are_measured(tiny):
  step, sampler = device_table.measure(tiny, at_least=0)
  assert step.batch_size == 16 and sampler.batch_size == 8
  per_image = step.flops / 3 / 16
  assert sampler.flops == 2 * per_image * 8 * 4  # two passes, T = 4
  assert min(step.seconds, sampler.seconds, step.memory, sampler.memory) > 0
  assert 0 < step.loader_wait < 1 and sampler.loader_wait is None
  assert 'digits, float32: training step' in device_table.show([step, sampler], None)


def test_the_shares_are_of_the_peak():
  text = device_table.show([Row('a', 10, 0.5, 2e12, 3e9, 0.25), Row('b', 1, 1, 1e12, 1)], 16e12)
  head, a, b = text.splitlines()
  assert head.split() == 'batch ms images/s TFLOP/s of peak GB loader wait'.split()
  assert a.split() == ['a', '10', '500.0', '20', '4.00', '25.0%', '3.00', '25.0%']
  assert b.split() == ['b', '1', '1000.0', '1', '1.00', '6.2%', '0.00', '–']
  assert len({len(line) for line in (head, a, b)}) == 1


def test_the_three_networks_run_in_bfloat16_on_all_devices():
  for name, size in device_table.PER_DEVICE.items():
    config = device_table.on_accelerator(name)
    assert config.model.dtype == 'bfloat16'
    assert config.train.batch_size == config.sample.batch_size == size * jax.device_count()
