"""The benchmarks' parts at small sizes, and the command that puts them together."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core.errors import UserError
from cfg_jax.data.prepare import speed
from cfg_jax.nets import unet
from experiments import (
  benchmark,
  benchmark_evaluation,
  benchmark_profile,
  benchmark_shares,
  benchmark_start,
  benchmark_sweep,
  device_table,
  ratios,
)
from experiments.ratios import Row


@pytest.fixture
def small(tiny, monkeypatch):
  """The tiny config with a network of one number.

  No other test has its seed: a plan counts the operations of a config once in a process.
  """
  monkeypatch.setattr(unet, 'create_params', lambda network, seed: {'a': jnp.float32(seed)})
  apply = lambda params, z, lam, cond, keys=None: params['a'] * z  # noqa: E731
  monkeypatch.setattr(unet, 'apply_fn', lambda network: apply)
  return config_lib.change(tiny, ['seed=4242'])


def test_calls_take_turns():
  calls = []
  slow = lambda: calls.append('b') or time.sleep(0.01)  # noqa: E731
  seconds = ratios.in_turns(3, lambda: calls.append('a'), slow)
  assert ''.join(calls) == 'ab' * 4  # the first ones compile
  assert seconds.shape == (2, 3)
  assert (seconds[1] >= 0.01).all()


def test_the_table_has_medians_and_spreads():
  lines = ratios.show([Row('a', [1, 3, 1.5]), Row('long', [0.5], '%'), Row('c', [2, 4], 's')])
  head, a, long, c = map(str.split, lines.splitlines())
  assert head == ['median', 'least', 'greatest', 'turns']
  assert a == ['a', '1.50', '×', '1.00', '×', '3.00', '×', '3']
  assert long == ['long', '50.0%', '50.0%', '50.0%', '1']
  assert c == ['c', '3.0', 's', '2.0', 's', '4.0', 's', '2']
  assert len(set(map(len, lines.splitlines()))) == 1


def test_a_command_is_timed_until_what_it_is_to_give_is_there(tmp_path):
  made = tmp_path / 'made'
  script = f'import time; open("{made}", "w"); time.sleep(1); print("done")'
  begin = time.perf_counter()
  (seconds, cpu), text = ratios.command('-c', script, until=made.exists)
  assert seconds < time.perf_counter() - begin - 0.9
  assert text == 'done' and cpu > 0
  with pytest.raises(UserError, match='failed: [^$]*ZeroDivisionError'):
    ratios.command('-c', '1 / 0')


def test_one_command_puts_the_parts_together(tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(ratios, 'cores', lambda: 2)
  lines = benchmark.commands(['unet', 'sweep'], long=False)
  assert [line.startswith('taskset -c ') for line in lines] == [False] * 2 + [True] * 2 + [False]
  assert len(benchmark.commands(list(benchmark.PARTS), long=True)) == 10
  with pytest.raises(UserError, match='^--parts=speed: there are shares, unet, '):
    benchmark.commands(['unet', 'speed'], long=False)
  script = tmp_path / 'part.py'
  script.write_text(
    'import sys\n'
    'open(sys.argv[2].partition("=")[2], "w").write(\'{"what": "a", "turns": [2]}\\n\')\n'
    'sys.exit(int(sys.argv[1]))\n'
  )
  lost = tmp_path / 'lost.py'
  rows = benchmark.measure([f'python {script} 0', f'python {lost} 0', f'python {script} 1'])
  assert rows == [Row('a', [2])] * 2
  told = capfd.readouterr().out
  assert f'{lost} 0 failed' in told and f'{script} 1 failed' in told
  assert f'{script} 0 failed' not in told


@pytest.mark.slow
def test_shares_of_the_product(small, monkeypatch, capsys):
  monkeypatch.setattr(speed, 'measure', lambda size: {'read': 1, 'prepare': 1})
  rows = benchmark_shares.measure(small, turns=2)
  assert [row.unit for row in rows] == ['%', '%', '×', '×', '×']
  assert all(len(row.turns) == 2 for row in rows)
  assert rows[0].turns == [0, 0] and min(rows[-1].turns) > 0  # it has no product
  assert '0.0 MFLOP a forward pass' in capsys.readouterr().out


def test_start_cold_and_warm(monkeypatch, tmp_path):
  seen = []

  def first(until, cache, *words):
    seen.append((words[0], cache, words[words.index('--workdir') + 1].name))
    return (30.0 if cache not in [c for _, c, _ in seen[:-2]] else 8.0), f'{len(seen)} of 9'

  with monkeypatch.context() as patch:
    patch.setattr(benchmark_start, 'first', first)
    rows = benchmark_start.measure(2, ['model.channels=8'])
  whats = [f'first {what}, {how}' for how in ('cold', 'warm') for what in ('step', 'sample')]
  assert [row.what.partition(' (')[0] for row in rows] == [f'digits: {what}' for what in whats]
  assert [row.turns for row in rows] == [[30, 30], [30, 30], [8, 8], [8, 8]]
  assert len({cache for _, cache, _ in seen}) == 2  # a new one each turn
  assert rows[0].what.endswith('(5 of 9 programs from the cache)')
  seconds, told = benchmark_start.first(lambda: False, tmp_path, 'this')
  assert seconds > 0 and told == '0 of 0'


def test_calls_and_seconds_of_a_sweep(tiny, tmp_path, monkeypatch, capsys):
  config = config_lib.change(tiny, ['sample.sampler.num_steps=4'])
  monkeypatch.setattr(ratios, 'cores', lambda: 2)
  calls = lambda ws, n: benchmark_sweep.calls(config, ws, n)  # noqa: E731
  assert (calls([0.0], 8), calls([1.0], 8), calls([0.0, 1.0], 8)) == (8 * 4, 8 * 8, 8 * 12)
  assert calls([1.0], 3) == 4 * 8 and calls([1.0, 2.0, 3.0, 4.0], 3) == 12 * 8
  config_lib.record(config, tmp_path)

  def generate(run, ws, n, **env):  # CPU is twice the clock
    return (2 + len(ws) + (5 if env else 0)) * np.array([1.0, 2.0])

  monkeypatch.setattr(benchmark_sweep, 'generate', generate)
  few, clock, cpu, compiled = benchmark_sweep.measure(tmp_path, [3], separate=4, turns=2)
  assert few.turns == [pytest.approx((4 * 4 + 40 * 4 * 8) / (4 * 4 + 120 * 8))]
  assert clock.turns == cpu.turns == [pytest.approx(41 * 3 / 43)] * 2
  assert compiled.turns == [pytest.approx(41 * 8 / 43)] * 2


def test_what_reading_and_statistics_add(monkeypatch):
  class Extractor:
    name, sha256, resize = 'slow', '', 'none'

    def __call__(self, images):
      seen.append(images)
      flat = images.reshape(len(images), -1)[:, :8].astype(np.float32)
      return {'features': flat, 'logits': flat}

  def in_turns(turns, *calls):
    for call in calls:
      call()
    return np.array([[1.0, 2.0], [1.1, 2.5]])

  seen, (row,) = [], benchmark_evaluation.frechet(turns=2, dim=16)
  assert len(row.turns) == 2 and min(row.turns) > 0
  monkeypatch.setattr(ratios, 'in_turns', in_turns)
  (row,) = benchmark_evaluation.overhead(Extractor(), (600, 8, 8, 3), turns=2)
  assert row.unit == '%' and row.turns == pytest.approx([0.1, 0.25])
  assert [len(images) for images in seen] == [512, 88] * 2  # the same images, from the file
  np.testing.assert_array_equal(np.concatenate(seen[:2]), np.concatenate(seen[2:]))


def test_the_table_of_a_device_has_the_ways_to_do_without_memory(small, monkeypatch, capsys):
  config = config_lib.change(small, ['model.remat=true'])
  monkeypatch.setattr(device_table, 'on_accelerator', lambda name: config)
  monkeypatch.setattr(device_table, 'PER_DEVICE', ['digits'])
  measured, seen = device_table.measure_step, []

  def step(config, at_least):
    seen.append((config.model.remat, config.model.get('remat_keeps', 'nothing')))
    if len(seen) == 2:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: of all')
    return measured(config, at_least)

  monkeypatch.setattr(device_table, 'measure_step', step)
  whats = [row.what for row in device_table.measure_all(at_least=0)]
  assert whats == [
    'digits, float32: training step',
    'digits, float32: sampler, T = 4',
    'digits, float32: training step, remat keeps products',
  ]
  assert seen == [(True, 'nothing'), (False, 'nothing'), (True, 'products')]
  assert 'imagenet64, without remat: There is not enough memory' in capsys.readouterr().out


def test_what_an_operation_is():
  """Of XLA's text: what is called comes first, and what an operation calls is a part of it."""
  hlo = """
%fused_computation.1 (p: f32[4]) -> f32[4] {
  %p.1 = f32[4]{0} parameter(0)
  ROOT %t.1 = f32[4]{0} transpose(%p.1), dimensions={0}
}

%fused_computation.2 (p: f32[4]) -> f32[4] {
  %p.2 = f32[4]{0} parameter(0)
  ROOT %neg.1 = f32[4]{0} negate(%p.2)
}

ENTRY %main (x: f32[4]) -> (f32[4], f32[]) {
  %x.1 = f32[4]{0} parameter(0)
  %forward = f32[4]{0} convolution(%x.1), window={size=3x3}, metadata={op_name="jvp()/conv"}
  %input = f32[4]{0} convolution(%x.1), window={size=3x3}, metadata={op_name="transpose(jvp())"}
  %kernel = f32[4]{0} convolution(%x.1), window={size=8x8}, metadata={op_name="transpose(jvp())"}
  %turned = f32[4]{0} fusion(%x.1), kind=kLoop, calls=%fused_computation.1
  %adam = f32[4]{0} fusion(%x.1), kind=kLoop, calls=%fused_computation.1, metadata={op_name="step"}
  %own = f32[4]{0} fusion(%x.1), kind=kLoop, calls=%fused_computation.2
  ROOT %both = (f32[4]{0}, f32[]) tuple(%own, %x.1)
}
"""
  found = benchmark_profile.kinds(hlo)
  kinds, rest = benchmark_profile.KINDS, benchmark_profile.REST
  names = ('forward', 'input', 'kernel', 'turned', 'own', 'adam')
  assert {name: found[name] for name in names} == {
    'forward': kinds['convolution'],
    'input': kinds['by input'],
    'kernel': kinds['by kernel'],
    'turned': kinds['transpose'],
    'own': rest,
    'adam': benchmark_profile.OUTSIDE,
  }


@pytest.mark.slow
def test_the_u_net_beside_pytorchs(monkeypatch):
  pytest.importorskip('torch')
  from experiments import adm_pytorch, benchmark_unet

  tiny = adm_pytorch.ADM(
    8, 8, (1,), 1, (), 8, None, new_attention_order=True, num_classes=10, groups=4
  )
  monkeypatch.setitem(benchmark_unet.SIZES, 'tiny', tiny)
  rows = benchmark_unet.measure('tiny', 2, 'float32', 2, {'PyTorch eager': False})
  assert [row.what.rpartition(', ')[0] for row in rows] == [
    f'tiny: {what}, beside PyTorch eager' for what in ('forward', 'forward and backward')
  ]
  assert all(len(row.turns) == 2 and min(row.turns) > 0 for row in rows)
