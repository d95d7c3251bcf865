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

from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core import state as train_state
from cfg_jax.generate import draw as generate
from cfg_jax.train import loop as train
from tests.conftest import load_config

# Of several arrays; those of one are the norms' gradients.
REMATS_BARRIER = r'optimization_barrier %\S+, '


def lower(name: str) -> None:
  config = load_config(name)
  config_lib.validate(config, jax.device_count())
  network = config_lib.network_of(config)
  mesh = sharding.data_mesh()
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  optimizer = train.make_optimizer(config.train)
  step = jax.jit(
    train.make_train_step(config, optimizer, mesh),
    in_shardings=(everywhere, split),
    out_shardings=(everywhere, everywhere),
    donate_argnums=0,
  )
  state = jax.eval_shape(functools.partial(train_state.create, network, optimizer, config.seed))

  def images(n, *shape, dtype=jnp.int32):
    return jax.ShapeDtypeStruct((n, *shape), dtype)

  n = config.train.batch_size
  batch = {'x': images(n, *network.image_shape, dtype=jnp.float32), 'c': images(n)}
  report('train_step', step, state, batch)

  n = config.sample.batch_size
  sampler = generate.make_sampler(config, mesh)
  report('sampler', sampler, state.params, images(n), images(n), images(n, dtype=jnp.float32))


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
