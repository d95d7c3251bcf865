"""What a training step does on eight devices: its collectives, and what lies on one device.

  JAX_NUM_CPU_DEVICES=8 python -m tests.on_devices

Prints one JSON object: `collectives` of the step in two microbatches, by name; for each of the
step's two placements, bytes on device 0 of each part of the state that a step has returned; and the
largest error of a mean over the devices, of arrays large and small.
"""

import functools
import json
import re

import jax
import jax.numpy as jnp

from cfg_jax import methods
from cfg_jax.core import sharding
from cfg_jax.core import state as train_state
from cfg_jax.data import registry
from cfg_jax.data.batches import Batch
from cfg_jax.equations import conditioning
from cfg_jax.plan import cost
from tests.conftest import TINY, load_config


def bytes_on_device_0(part) -> int:
  device = jax.devices()[0]
  shards = [s for x in jax.tree.leaves(part) for s in x.addressable_shards]
  return sum(s.data.nbytes for s in shards if s.device == device)


def error_of_a_mean() -> float:
  shapes = {'a': (3,), 'large': (sharding.SMALL,), 'm': (2, 5), 'n': (sharding.SMALL, 2), 'z': ()}
  params = {name: jnp.full(shape, k + 1.0) for k, (name, shape) in enumerate(shapes.items())}
  samples = jnp.arange(16.0)

  def gradient(params, samples):
    return jax.tree.map(lambda p: p * samples.mean(), params), 2 * samples

  mean = jax.jit(sharding.mean_over_devices(gradient, sharding.data_mesh()))
  errors = jax.tree.map(
    lambda x, y: float(abs(x - y).max()), mean(params, samples), gradient(params, samples)
  )
  return max(jax.tree.leaves(errors))


def main() -> None:
  found = {'error of a mean': error_of_a_mean()}
  for shard in (False, True):
    changes = {'train.microbatches': 2, 'train.shard_optimizer': shard}
    config = load_config('digits', **TINY | changes)
    mesh, shape = sharding.data_mesh(), registry.of(config.data).image_shape
    everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
    method = methods.make(config, mesh)
    create = functools.partial(method.init, 0)
    placed = train_state.shardings(jax.eval_shape(create), mesh, shard)
    state = jax.jit(create, out_shardings=placed)()
    cond = conditioning.given(jnp.zeros(16, jnp.int32))
    batch = jax.device_put(Batch(jnp.zeros((16, *shape)), cond), split)
    step = jax.jit(
      method.step,
      in_shardings=(placed, split),
      out_shardings=(placed, everywhere),
    )
    compiled = step.lower(state, batch).compile()
    if not shard:
      names = 'all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter'
      calls = re.findall(rf' ({names})(?:-start)?\(', compiled.as_text())
      found['collectives'] = {name: calls.count(name) for name in set(calls)}
    state, _ = compiled(state, batch)
    found[f'shard_optimizer={shard}'] = {
      name: bytes_on_device_0(part) for name, part in state._asdict().items()
    }
    found[f'planned, {shard}'] = cost.count_memory(config, 2, 8)
  print(json.dumps(found))


if __name__ == '__main__':
  main()
