"""Lowers a config's whole training step and sampler for CUDA and TPU, without memory for either.

  JAX_NUM_CPU_DEVICES=8 python -m tests.lowering imagenet64

Prints one JSON line for each: CPU seconds, devices, platforms and what the program holds.
"""

import functools
import json
import re
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.data import registry
from cfg_jax.data.batches import Batch
from cfg_jax.equations.conditioning import Cond
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.methods import drawing
from tests.conftest import load_config

# Of several arrays; those of one are the norms' gradients.
REMATS_BARRIER = r'optimization_barrier %\S+, '


def lower(name: str) -> None:
  config = load_config(name)
  config_lib.check(config, OWNERS, jax.device_count())
  shape = registry.of(config.data).image_shape
  mesh = sharding.data_mesh()
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  method = methods.make(config, mesh)
  step = jax.jit(
    method.step,
    in_shardings=(everywhere, split),
    out_shardings=(everywhere, everywhere),
    donate_argnums=0,
  )
  state = jax.eval_shape(functools.partial(method.init, config.seed))

  def images(n, *shape, dtype=jnp.int32):
    return jax.ShapeDtypeStruct((n, *shape), dtype)

  n = config.train.batch_size
  cond = Cond(images(n), images(n, dtype=bool))
  batch = Batch(images(n, *shape, dtype=jnp.float32), cond)
  report('train_step', step, state, batch)

  n = config.sample.batch_size
  sampler = drawing.make_sampler(config, mesh)
  knobs = {'w': images(n, dtype=jnp.float32)}
  report('sampler', sampler, state.params, images(n), images(n), knobs, np.uint32(0))


def report(what: str, f, *args) -> None:
  start = time.process_time()
  exported = jax.export.export(f, platforms=['cuda', 'tpu'])(*args)
  seconds = time.process_time() - start
  text = exported.mlir_module()
  convolutions = re.findall(r'stablehlo\.convolution.* -> tensor<.*x(\w+)>', text)
  line = {
    'what': what,
    'seconds': round(seconds, 1),
    'devices': exported.nr_devices,
    'platforms': exported.platforms,
    'convolutions': {dtype: convolutions.count(dtype) for dtype in sorted(set(convolutions))},
    'barriers': len(re.findall(REMATS_BARRIER, text)),
    'output': str(exported.out_avals[-1]),
  }
  print(json.dumps(line), flush=True)


if __name__ == '__main__':
  lower(sys.argv[1])
