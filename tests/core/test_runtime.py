"""Before JAX's first use: how many devices, and flags that an XLA may not know."""

import collections
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cfg_jax.core import runtime

SCRIPT = """
import jax
from cfg_jax.core import runtime

runtime.WIDE_FLAGS += {flags!r}
runtime.setup_jax(2, channels={channels})
print(jax.device_count(), *runtime.os.environ.get('XLA_FLAGS', '').split())
"""


def start(channels, *flags, **env):
  """(printed words, stderr) of a process that sets up JAX for a network of so many channels."""
  env = os.environ | {'JAX_PLATFORMS': 'cpu'} | env
  env.pop('JAX_NUM_CPU_DEVICES', None)
  script = SCRIPT.format(channels=channels, flags=flags)
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, env=env, check=True
  )
  return done.stdout.split(), done.stderr


def test_a_wide_network_gets_one_device_and_flags_which_the_users_follow():
  narrow = str(min(2, os.cpu_count()))
  own = '--xla_backend_optimization_level=1'
  assert start(runtime.WIDE - 1, XLA_FLAGS=own) == ([narrow, own], '')
  assert start(runtime.WIDE, XLA_FLAGS=own) == (['1', *runtime.WIDE_FLAGS, own], '')


def test_an_xla_that_does_not_know_a_flag_starts_without_it():
  words, told = start(runtime.WIDE, '--xla_cpu_made_up=true', XLA_FLAGS='')
  assert words == ['1', *runtime.WIDE_FLAGS]
  assert len(told.splitlines()) == 1
  assert 'runs without --xla_cpu_made_up=true' in told


def test_programs_from_the_cache_are_counted(monkeypatch):
  """The second of two processes' would be one; here JAX forgets the first."""
  new = time.time_ns() % 10**9  # else another process may have compiled it
  f, x = lambda x: jnp.sin(x) + new, jnp.ones(7)
  monkeypatch.setattr(runtime, 'programs', collections.Counter())
  for found in (0, 1):
    jax.clear_caches()
    jax.jit(f)(x)
    assert runtime.programs['from the cache'] == found
  assert runtime.programs['asked for'] == 2


def test_what_runs_once_is_compiled_in_less_time_to_the_same_bits(monkeypatch):
  assert runtime.options_of_what_runs_once() == {}  # the tests' own level, in XLA_FLAGS, stands
  monkeypatch.setenv('XLA_FLAGS', '')
  options = runtime.options_of_what_runs_once()
  assert options == {'xla_backend_optimization_level': 1}
  create = jax.jit(lambda: nnx.initializers.lecun_normal()(jax.random.key(0), (3, 3, 48, 96)))
  usual = create.lower().compile({'xla_backend_optimization_level': 3})()
  np.testing.assert_array_equal(create.lower().compile(options)(), usual)
