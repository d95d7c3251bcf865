"""Placement: which axis is shared out, and what becomes of freed memory."""

import os
import subprocess
import sys

import pytest

from cfg_jax.core import sharding


@pytest.mark.parametrize(
  ('shape', 'axis'),
  [
    ((3, 3, 16, 64), 3),
    ((64, 24), 0),
    ((1001, 768), 1),  # the largest does not divide
    ((8, 8), 0),
    ((12,), None),
    ((), None),
  ],
)
def test_the_largest_axis_that_the_devices_divide_is_split(shape, axis):
  assert sharding.split_axis(shape, 8) == axis


@pytest.mark.skipif(sys.platform != 'linux', reason="glibc's malloc")
def test_freed_memory_is_used_again_without_the_systems_help():
  """200 MB in the first thread; in another, 48 MB, which no longer fit into its first heap.

  200 MB in another thread, which no heap of its own holds, are kept for wide networks only.
  """
  script = """
import resource, sys, threading
import numpy as np
from cfg_jax.core import sharding

if sys.argv[1] != 'leave':
  sharding.setup_jax(channels=int(sys.argv[1]))

def faults(size):
  held = np.ones(3_000_000)
  np.ones(size)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(5):
    np.ones(size)
  print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

faults(25_000_000)
for size in (6_000_000, 25_000_000):
  thread = threading.Thread(target=faults, args=[size])
  thread.start()
  thread.join()
"""
  narrow, wide, mapped = (
    [int(n) for n in subprocess.check_output([sys.executable, '-c', script, how]).split()]
    for how in ('0', str(sharding.WIDE), 'leave')
  )
  assert max(*narrow[:2], *wide) < 100 < 1000 < min(narrow[2], *mapped)


@pytest.mark.parametrize(('channels', 'devices', 'by_eigen'), [(127, 2, False), (128, 1, True)])
def test_a_wide_network_gets_one_device_and_eigens_convolutions(channels, devices, by_eigen):
  script = f"""
import jax, jax.numpy as jnp
from cfg_jax.core import sharding

sharding.setup_jax(2, channels={channels})
convolve = lambda x, k: jax.lax.conv_general_dilated(
  x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
x, kernel = jnp.ones((1, 8, 8, 64)), jnp.ones((3, 3, 64, 64))
print(jax.device_count(), 'ynn' not in jax.jit(convolve).lower(x, kernel).compile().as_text())
"""
  env = {k: v for k, v in os.environ.items() if k not in ('XLA_FLAGS', 'JAX_NUM_CPU_DEVICES')}
  env['JAX_PLATFORMS'] = 'cpu'
  found = subprocess.check_output([sys.executable, '-c', script], text=True, env=env)
  assert found.split() == [str(min(devices, os.cpu_count())), str(by_eigen)]
