"""Where a training step's time goes on this machine, by kind of operation. Prints; asserts nothing.

  python -m experiments.benchmark_profile [--config configs/cifar10.py]
  taskset -c 0 python -m experiments.benchmark_profile            on one core

By XLA's own trace, on a CPU: a kind's share is that of the seconds of its operations, added up over
threads. The last rows are the convolutions' FLOPs a second beside this machine's float32 product,
both of a core.
"""

import collections
import functools
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from cfg_jax import methods
from cfg_jax.core import command, runtime, sharding
from cfg_jax.data import registry
from cfg_jax.data.batches import Batch
from cfg_jax.equations import conditioning
from cfg_jax.plan import cost
from experiments import ratios
from experiments.ratios import Row

TRACED = '--xla_cpu_enable_xprof_traceme=true'  # else a trace has no operations
# What an operation is, by XLA's words for it or for what is fused into it: the first that fits.
KINDS = {
  'by kernel': 'convolutions, gradients by kernels',
  'by input': 'convolutions, gradients by inputs',
  'convolution': 'convolutions, forward',
  'dot': 'matrix products',
  'transpose': 'transposes and copies',
  'copy': 'transposes and copies',
  'reduce': 'sums, of norms and biases',
  'reduce-window': 'sums, of norms and biases',
}
REST = 'element by element'
OUTSIDE = 'outside of the gradient: noise, Adam, EMA'
COMPUTATION = re.compile(r'(?:ENTRY )?%([\w.-]+) \(')
INSTRUCTION = re.compile(r'\s+(?:ROOT )?%([\w.-]+) = (?:\(.*?\)|\S+) ([\w-]+)\(')
CALLED = re.compile(r'(?:calls|to_apply|body|condition)=%([\w.-]+)')
WINDOW = re.compile(r'window={size=(\d+)')


def kinds(hlo: str) -> dict[str, str]:
  """The kind of each operation of a compiled program, XLA's text of it, by the operation's name."""
  inside, found, computation = collections.defaultdict(set), {}, None
  for line in hlo.splitlines():  # what is called comes before what calls it
    if match := COMPUTATION.match(line):
      computation = match[1]
    elif match := INSTRUCTION.match(line):
      words = {match[2]}.union(*(inside[name] for name in CALLED.findall(line)))
      if match[2] == 'convolution' and 'transpose(' in line:
        window = WINDOW.search(line)  # of a gradient by a kernel it is as large as the image
        words.add('by kernel' if window and int(window[1]) > 3 else 'by input')
      inside[computation] |= words
      kind = next((kind for word, kind in KINDS.items() if word in words), REST)
      found[match[1]] = OUTSIDE if 'op_name=' in line and 'jvp' not in line else kind
  return found


def seconds(call: Callable[[], object], kind_of: dict[str, str]) -> dict[str, float]:
  """Seconds of each kind in one call, over all threads."""
  total = dict.fromkeys([*KINDS.values(), REST, OUTSIDE], 0.0)
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      call()
    [path] = Path(folder).rglob('*.xplane.pb')
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
      for event in (event for line in plane.lines for event in line.events):
        if event.name in kind_of:
          total[kind_of[event.name]] += event.duration_ns / 1e9
  return total


def measure(config: ml_collections.ConfigDict, turns: int) -> list[Row]:
  """A row for each kind, and one for the rate of each kind of convolution."""
  mesh, n = sharding.data_mesh(), config.train.batch_size
  method, dataset = methods.make(config, mesh), registry.of(config.data)
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  state = jax.jit(functools.partial(method.init, config.seed), out_shardings=everywhere)()
  x = np.zeros((n, *dataset.image_shape), np.float32)
  cond = conditioning.given(np.arange(n, dtype=np.int32) % dataset.num_classes)
  batch = jax.device_put(Batch(x, cond), split)
  side = 2048
  square = jax.device_put(jnp.ones((side, side)), split), jax.device_put(jnp.ones((side, side)))
  product = jax.jit(jnp.matmul)
  step = jax.jit(method.step, out_shardings=everywhere).lower(state, batch).compile()
  [taken] = ratios.in_turns(turns, lambda: product(*square))
  rate = 2 * side**3 / np.median(taken) / ratios.cores()  # of one core
  kind_of = kinds(step.as_text())
  call = lambda: jax.block_until_ready(step(state, batch))  # noqa: E731
  call()
  found = [seconds(call, kind_of) for _ in range(turns)]
  flops = n * cost.forward_flops(config).convolutions  # of each of the three
  what = f'{config.data.name}: training step, {ratios.on_cores()}'
  rows = [
    Row(f'{what}: {kind}', [each[kind] / sum(each.values()) for each in found], '%')
    for kind in found[0]
  ]
  return rows + [
    Row(f'{what}: {kind}, of the product', [flops / each[kind] / rate for each in found], '%')
    for kind in found[0]
    if kind.startswith('convolutions')
  ]


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  config = command.config_of_file()
  os.environ['XLA_FLAGS'] = f'{TRACED} {os.environ.get("XLA_FLAGS", "")}'.strip()
  runtime.setup_jax(config.train.batch_size, channels=config.model.channels)
  ratios.report(measure(config, flags.FLAGS.turns))


if __name__ == '__main__':
  command.define_config_flags('configs/digits.py', required=False)
  ratios.define_flags(turns=7)
  command.run(main)
