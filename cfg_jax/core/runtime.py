"""How a process is set up before JAX's first use: its cache, devices, XLA's flags and memory."""

import collections
import contextlib
import ctypes
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jaxlib

log = logging.getLogger(__name__)
programs = collections.Counter()  # of this process: 'asked for', and 'from the cache'
WIDE = 128  # channels of a network's first level
# XLA for a CPU: convolutions by Eigen, which with one device takes a quarter off ADM-64's gradient;
# operations one after another, without which remat saves no memory.
WIDE_FLAGS = (
  '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution',
  '--xla_cpu_enable_concurrency_optimized_scheduler=false',
)


def setup_jax(*batch_sizes: int, channels: int = 0) -> None:
  """What every command sets before JAX's first use: a cache of programs, devices and memory.

  channels: of the network that will run, if one will. The rest matters only where JAX finds nothing
  better than a CPU. For a narrow network one JAX device a core, as many as divide all batch sizes,
  doubles the speed of small convolutions on two cores; for a wide one, one device and `WIDE_FLAGS`.
  JAX_NUM_CPU_DEVICES, JAX_COMPILATION_CACHE_DIR and what is in XLA_FLAGS, where set, stand.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    cache = Path(os.path.expanduser(os.environ.get('XDG_CACHE_HOME') or '~/.cache')) / 'cfg_jax/xla'
    with contextlib.suppress(OSError):  # no home, or none that can be written: then without
      if cache.is_absolute():
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
          jax.config.update('jax_compilation_cache_dir', str(cache))
  wide = channels >= WIDE
  if wide:
    os.environ['XLA_FLAGS'] = ' '.join(
      [*known(WIDE_FLAGS), os.environ.get('XLA_FLAGS', '')]
    ).strip()
  if 'JAX_NUM_CPU_DEVICES' in os.environ:
    devices = int(os.environ['JAX_NUM_CPU_DEVICES'])
  else:
    affinity = getattr(os, 'sched_getaffinity', None)  # Linux only
    cores = 1 if wide else len(affinity(0)) if affinity else os.cpu_count()
    devices = max(n for n in range(1, cores + 1) if all(size % n == 0 for size in batch_sizes))
    jax.config.update('jax_num_cpu_devices', devices)
  _keep_freed_memory(one_heap=wide or devices == 1)


def options_of_what_runs_once() -> dict[str, int]:
  """For `jax.jit`'s compiler_options: on a CPU, half the compilation, to the same bits.

  The digits' first parameters took 9 s of processor time to compile, and take 5.
  """
  name = 'xla_backend_optimization_level'
  if jax.default_backend() != 'cpu' or name in os.environ.get('XLA_FLAGS', ''):
    return {}
  return {name: 1}


def _count_programs(event: str, **kwargs) -> None:
  del kwargs
  if event == '/jax/compilation_cache/compile_requests_use_cache':
    programs['asked for'] += 1
  elif event == '/jax/compilation_cache/cache_hits':
    programs['from the cache'] += 1


jax.monitoring.register_event_listener(_count_programs)


def known(flags: Sequence[str]) -> list[str]:
  """Those of `flags` that the installed XLA accepts; a warning names the others.

  XLA ends a process whose XLA_FLAGS it does not know, so others try: half a second.
  """
  if _starts(flags):
    return list(flags)
  accepted = [flag for flag in flags if _starts([flag])]
  dropped = ' '.join(flag for flag in flags if flag not in accepted)
  log.warning(
    'XLA of jaxlib %s runs without %s, which it does not know.', jaxlib.__version__, dropped
  )
  return accepted


def _starts(flags: Sequence[str]) -> bool:
  """Whether JAX starts on a CPU with these XLA_FLAGS alone."""
  env = os.environ | {'XLA_FLAGS': ' '.join(flags), 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-c', 'import jax; jax.devices()']
  return subprocess.run(command, env=env, capture_output=True).returncode == 0


def _keep_freed_memory(one_heap: bool) -> None:
  """Tells glibc to return no memory to the system.

  XLA on a CPU allocates its working memory anew at every call. Above 32 MB glibc would map it and
  unmap it each time, and the system clear every page: a tenth of a training step. one_heap: for all
  threads, where a device's working memory may outgrow a thread's heap: the digits' gradient takes
  83 MB at 64 images on one device, and mapped anew a tenth more time on one core.
  """
  if sys.platform == 'linux' and hasattr(libc := ctypes.CDLL(None), 'mallopt'):
    m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8  # malloc.h
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, -1)  # never
    libc.mallopt(m_top_pad, 1 << 26)  # a thread's heap is 64 MB: it too is kept when it empties
    if one_heap:
      libc.mallopt(m_arena_max, 1)  # what does not fit into a thread's heap would be mapped again
