"""How things are computed, where that is what makes them fast; the other tests hold what comes out.

A guard that fails after an upgrade of JAX may only need new words for the same program.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import types
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo

from cfg_jax import methods
from cfg_jax.core import runtime, sharding
from cfg_jax.data import registry
from cfg_jax.data.batches import Batch
from cfg_jax.equations.conditioning import Cond
from cfg_jax.nets import cpu, unet
from tests.conftest import TINY, load_config, run
from tests.lowering import REMATS_BARRIER
from tests.nets.test_unet import LAM, SMALL, C, Z, cond

pytestmark = pytest.mark.slow
SIDE = int(cpu.POSITIONS**0.5)


def text(f, platform, *args) -> str:
  """The program of f for a platform that need not be here."""
  return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def convolved(convolution, shape, size, platform, gradient=False) -> str:
  layer = nnx.Conv(shape[-1], 24, (size, size), rngs=nnx.Rngs(0), conv_general_dilated=convolution)
  graph, params = nnx.split(layer)
  f = lambda params, x: nnx.merge(graph, params)(x).sum()  # noqa: E731
  return text(jax.grad(f) if gradient else f, platform, params, jnp.ones(shape))


@pytest.mark.parametrize('gradient', [False, True])
def test_on_cpus_it_is_a_product_where_the_image_is_small_and_wide(gradient):
  small = (2, SIDE, SIDE, cpu.CHANNELS)
  wider = (2, SIDE, SIDE + 1, cpu.CHANNELS)
  assert 'convolution' not in convolved(cpu.convolve, small, 3, 'cpu', gradient)
  assert 'convolution' in convolved(cpu.convolve, wider, 3, 'cpu', gradient)
  by_one = [
    'convolution' in convolved(cpu.convolve, small, 1, p, gradient) for p in ('cpu', 'cuda')
  ]
  assert by_one == [not gradient, True]  # the gradient by a 1×1 kernel too is a product
  for platform in ('cuda', 'tpu'):
    program = convolved(cpu.convolve, small, 3, platform, gradient)
    assert 'convolution' in program and 'concatenate' not in program


@pytest.mark.parametrize('gradient', [False, True])
def test_on_cpus_four_small_convolutions_are_the_enlarged_images(gradient):
  def count(platform, shape):
    program = convolved(cpu.convolve_upsampled, shape, 3, platform, gradient)
    return program.count('stablehlo.convolution(')

  assert [count(platform, (2, 8, 8, 32)) for platform in ('cpu', 'cuda', 'tpu')] == [4, 1, 1]
  assert count('cpu', (2, SIDE, SIDE, cpu.CHANNELS)) == 4  # small and wide before it is enlarged
  assert count('cpu', (2, 4, 4, cpu.CHANNELS)) == 0  # a product, of the enlarged images


def attended(attend, platform, gradient, dtype, d=64) -> str:
  f = lambda x: attend(2 * x, 3 * x, x).astype(jnp.float32).sum()  # noqa: E731
  x = jax.ShapeDtypeStruct((2, 16, 4, d), dtype)
  return text(jax.grad(f) if gradient else f, platform, x)


def products(program: str) -> list[str]:
  """Each matrix product: axes and types."""
  return [line.partition('batching_dims')[2] for line in program.splitlines() if 'dot_g' in line]


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('gradient', [False, True])
def test_attention_is_jaxs_own_but_on_cpus(gradient, dtype):
  for platform in ('cpu', 'cuda', 'rocm', 'tpu'):
    found = products(attended(cpu.attend, platform, gradient, dtype))
    jaxs = products(attended(jax.nn.dot_product_attention, platform, gradient, dtype))
    assert len(found) == (6 if gradient and platform == 'cpu' else len(jaxs))
    assert (found == jaxs) == (platform != 'cpu')


def test_attention_is_cudnns_where_the_gpu_has_it(monkeypatch):
  """As on a machine with such a GPU, whose cuDNN JAX asks for its version."""

  def found(capability, **kwargs):
    gpu = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, 'devices', lambda: [gpu])
    jax.clear_caches()
    of = lambda platform: attended(cpu.attend, platform, True, **kwargs)  # noqa: E731
    assert 'fmha' not in of('cpu') + of('tpu')
    return of('cuda').count('@__cudnn$fmhaSoftmax')

  monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91000)
  forward_and_backward = 2
  for capability in ('8.0', '9.0'):
    assert found(capability, dtype='bfloat16') == forward_and_backward
  assert found('9.0', dtype='float16', d=128) == forward_and_backward
  assert found('9.0', dtype='float32') == 0
  assert found('9.0', dtype='bfloat16', d=136) == found('9.0', dtype='bfloat16', d=12) == 0
  assert found('7.5', dtype='bfloat16') == found('gfx90a', dtype='bfloat16') == 0
  jax.clear_caches()


def test_a_gpus_step_gives_its_state_up_and_never_meets_the_host(monkeypatch):
  """The whole step as `train` compiles it, lowered as for a GPU that has cuDNN's attention."""
  config = load_config('digits', **TINY, **{'model.dtype': 'bfloat16'})
  mesh = sharding.data_mesh(jax.devices()[:1])
  method = methods.make(config, mesh)
  state = jax.eval_shape(lambda: method.init(0))
  n = config.train.batch_size
  images, ids = jax.ShapeDtypeStruct((n, 8, 8, 1), jnp.float32), jax.ShapeDtypeStruct((n,), 'int32')
  batch = Batch(images, Cond(ids, jax.ShapeDtypeStruct((n,), bool)))
  gpu = types.SimpleNamespace(compute_capability='9.0')
  monkeypatch.setattr(jax, 'devices', lambda: [gpu])
  monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91000)
  jax.clear_caches()
  step = jax.jit(method.step, donate_argnums=0)
  program = step.trace(state, batch).lower(lowering_platforms=('cuda',)).as_text()
  jax.clear_caches()
  donated = re.findall(r'tf\.aliasing_output|jax\.buffer_donor', program)
  assert len(donated) == len(jax.tree.leaves(state))
  calls = Counter(re.findall(r'custom_call @([\w$]+)', program))
  attention = {name: number for name, number in calls.items() if name.startswith('__cudnn$')}
  assert attention == {'__cudnn$fmhaSoftmax': 4, '__cudnn$fmhaSoftmaxBackward': 4}
  assert calls.keys() - attention.keys() <= {'cu_threefry2x32_ffi'}
  assert not re.search(r'stablehlo\.(infeed|outfeed|send|recv)|callback|_host', program)


def test_the_gradients_barrier_is_on_cpus_only():
  f = jax.grad(lambda x: jnp.sin(cpu.whole_gradient(x)))
  barrier = [
    'optimization_barrier' in text(f, platform, 1.0) for platform in ('cpu', 'cuda', 'tpu')
  ]
  assert barrier == [True, False, False]


def test_remat_recomputes():
  def found(**remat):
    plain = dataclasses.replace(SMALL, channel_mults=(1,), attention_resolutions=(), **remat)
    apply, params = unet.apply_fn(plain), unet.create_params(plain, 0)
    keys = jax.random.split(jax.random.key(3), len(Z))
    gradient = jax.grad(lambda p: jnp.mean(apply(p, Z, LAM, cond(C), keys) ** 2))
    program = text(gradient, 'cpu', params)
    products = program.count('stablehlo.convolution('), program.count('stablehlo.dot_general')
    return len(re.findall(REMATS_BARRIER, program)), products

  barriers, products = found(remat=False)
  again, more = found(remat=True)
  kept, same = found(remat=True, remat_keeps='products')
  assert barriers == 0 < again == kept
  assert more > products == same


@pytest.mark.parametrize('name', ['imagenet64', 'imagenet128'])
def test_the_step_and_the_sampler_lower_for_cuda_and_tpu_on_eight_devices(name):
  """The paper's, for accelerators that this machine does not have."""
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


@pytest.mark.skipif(sys.platform != 'linux', reason="glibc's malloc")
def test_freed_memory_is_used_again_without_the_systems_help():
  """200 MB in the first thread; in another, 48 MB, which no longer fit into its first heap.

  200 MB in another thread, which no heap of its own holds, are kept for wide networks and where
  there is one device.
  """
  script = """
import resource, sys, threading
import numpy as np
from cfg_jax.core import runtime

if sys.argv[1] != 'leave':
  runtime.setup_jax(channels=int(sys.argv[1]))

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

  def faults(how, devices='2'):
    env = os.environ | {'JAX_NUM_CPU_DEVICES': devices}
    return [
      int(n) for n in subprocess.check_output([sys.executable, '-c', script, how], env=env).split()
    ]

  narrow, wide, mapped = map(faults, ('0', str(runtime.WIDE), 'leave'))
  assert max(*narrow[:2], *wide, *faults('0', devices='1')) < 100 < 1000 < min(narrow[2], *mapped)


@pytest.mark.parametrize(('channels', 'devices', 'by_eigen'), [(127, 2, False), (128, 1, True)])
def test_a_wide_network_gets_one_device_and_eigens_convolutions(channels, devices, by_eigen):
  script = f"""
import jax, jax.numpy as jnp
from cfg_jax.core import runtime

runtime.setup_jax(2, channels={channels})
convolve = lambda x, k: jax.lax.conv_general_dilated(
  x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
x, kernel = jnp.ones((1, 8, 8, 64)), jnp.ones((3, 3, 64, 64))
print(jax.device_count(), 'ynn' not in jax.jit(convolve).lower(x, kernel).compile().as_text())
"""
  env = {k: v for k, v in os.environ.items() if k not in ('XLA_FLAGS', 'JAX_NUM_CPU_DEVICES')}
  env['JAX_PLATFORMS'] = 'cpu'
  found = subprocess.check_output([sys.executable, '-c', script], text=True, env=env)
  assert found.split() == [str(min(devices, os.cpu_count())), str(by_eigen)]
