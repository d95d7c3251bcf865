"""Plans: FLOPs, kept bytes and memory against counts by hand, and against the compiler."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.data.batches import Batch
from cfg_jax.equations.conditioning import Cond
from cfg_jax.methods import drawing
from cfg_jax.nets import cpu, unet
from cfg_jax.papers.cfg.tables import TABLES
from cfg_jax.plan import cost, devices
from cfg_jax.plan import flops as costs
from cfg_jax.plan import show as plan
from tests.conftest import TINY, load_config, run

ONE_DEVICE = sharding.data_mesh(jax.devices()[:1])


def shape(*sizes, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(sizes, dtype)


def products(f):
  return f.convolutions + f.attention


@pytest.fixture(scope='module')
def tiny():
  return load_config('digits', **TINY)


def conv(x, w):
  return jax.lax.conv_general_dilated(
    x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def test_flops_of_a_convolution_with_and_without_its_padding():
  found = costs.count_flops(conv, shape(2, 5, 5, 3), shape(3, 3, 3, 7))
  assert found.convolutions == 2 * (2 * 5 * 5) * (3 * 3 * 3) * 7
  inside = (3 * 5 - 2) ** 2  # taps of a row of 5: 3 each, less one at both ends
  assert found.compiler == 2 * (2 * inside) * 3 * 7
  assert found.attention == 0


def test_flops_of_products_scans_and_branches():
  def f(a, b, q):
    chain, _ = jax.lax.scan(lambda a, _: (a @ b, None), a, length=5)
    branch = jax.lax.cond(a[0, 0] > 0, lambda a: a @ b, lambda a: a, a)
    return chain + branch, jnp.einsum('bqc,bkc->bqk', q, q)

  found = costs.count_flops(f, shape(4, 3), shape(3, 3), shape(2, 8, 16))
  assert found.convolutions == 6 * 2 * 4 * 3 * 3
  assert found.attention == 2 * 2 * 8 * 8 * 16


def test_kept_bytes_are_the_derivatives_and_remat_keeps_them_for_one_stage_only():
  def stage(w, x):  # keeps cos(w x) and cos(sin(w x)); x itself is an input
    return jnp.sin(jnp.sin(w * x))

  def twice(stage, w, x):
    return stage(w, stage(w, x)).sum()

  w, x = shape(1000), shape(1000)
  array = 4 * 1000
  plain = costs.kept_bytes(functools.partial(twice, stage), w, x)
  assert plain == (2 * 2 * array + array, 0)  # and what the second stage starts from
  remat = costs.kept_bytes(functools.partial(twice, jax.checkpoint(stage)), w, x)
  assert remat == (array, 2 * array)


def test_kept_bytes_of_attention_are_those_of_jaxs_own():
  def kept(attend):
    return costs.kept_bytes(lambda x: attend(2 * x, 3 * x, 4 * x).sum(), shape(2, 64, 4, 16))[0]

  assert kept(cpu.attend) == kept(jax.nn.dot_product_attention) + 4  # the branch's number


def test_parameters_of_vdms_network():
  """Which has no levels, and a schedule beside it."""
  parts = cost.parameters(load_config('vdm_digits'))
  assert sum(parts.values()) == 748_993
  assert {'down, 8×8, 48 channels', 'middle', 'up, 8×8, 48 channels'} <= parts.keys()


def test_parameters_of_adm_64():
  parts = cost.parameters(load_config('imagenet64'))
  assert sum(parts.values()) == 295_900_035
  assert parts['embedding of the class'] == 1001 * 768
  assert parts['embedding of λ'] == 192 * 768 + 768 + 768 * 768 + 768
  assert parts['first convolution'] == 9 * 3 * 192 + 192
  assert parts['last norm and convolution'] == 2 * 192 + 9 * 192 * 3 + 3
  order = ['64×64, 192', '32×32, 384', '16×16, 576', '8×8, 768']
  ways = [f'down, {o} channels' for o in order] + [f'up, {o} channels' for o in order[::-1]]
  assert [name for name in parts if name.startswith(('down', 'up'))] == ways


def test_training_is_three_forward_passes_but_for_the_gradients_of_inputs(tiny):
  flops, network = cost.image_flops(tiny), unet.of(tiny)
  h, w, c_image = network.image_shape
  c = network.channels
  no_input_gradient = 2 * h * w * 9 * c_image * c + 2 * c * 4 * c  # first convolution, of λ's sines
  assert products(flops.train) == 3 * products(flops.forward) - no_input_gradient
  assert flops.train_remat is None
  assert 0.7 < flops.forward.compiler / products(flops.forward) < 1  # 8×8 and 4×4: much padding


def test_remat_repeats_at_most_a_forward_pass(tiny):
  config = load_config('digits', **TINY, **{'model.remat': True})
  flops = cost.image_flops(config)
  assert products(flops.train) == products(cost.image_flops(tiny).train)
  repeated = products(flops.train_remat) - products(flops.train)
  assert 0.5 * products(flops.forward) < repeated < products(flops.forward)


def test_the_whole_step_and_the_whole_sampler_do_what_the_plan_counts(tiny):
  flops, network = cost.image_flops(tiny), unet.of(tiny)
  method = methods.make(tiny, ONE_DEVICE)
  state = jax.eval_shape(functools.partial(method.init, 0))
  number = shape(6, dtype=jnp.int32)
  batch = Batch(shape(6, *network.image_shape), Cond(number, shape(6, dtype=bool)))
  assert products(costs.count_flops(method.step, state, batch)) == 6 * products(flops.train)

  sampler = drawing.make_sampler(tiny, sharding.data_mesh())
  number = shape(8, dtype=jnp.int32)
  found = costs.count_flops(sampler, state.params, number, number, {'w': shape(8)}, np.uint32(0))
  assert products(found) == 8 * tiny.sample.sampler.num_steps * 2 * products(flops.forward)


def test_passes_that_share_their_trunk_are_counted_as_such(tiny):
  config = config_lib.change(tiny, ['model.late_condition=4'])
  whole, steps = products(cost.forward_flops(config)), config.sample.sampler.num_steps
  params = jax.eval_shape(functools.partial(methods.make(config, ONE_DEVICE).init, 0)).params
  number = shape(8, dtype=jnp.int32)
  sampler = drawing.make_sampler(config, ONE_DEVICE)
  found = costs.count_flops(sampler, params, number, number, {'w': shape(8)}, np.uint32(0))
  share = products(found) / (8 * steps * whole) - 1
  assert 0.5 < share < 0.8
  assert cost.second_pass(config) == pytest.approx(share, rel=0.1)  # padding apart
  unguided, guided = (cost.image_calls(config, w) for w in (0.0, 1.0))
  assert unguided == steps and guided == steps * (1 + cost.second_pass(config))
  apart = config_lib.change(config, ['sample.guidance.pair=autoguidance'])
  assert cost.second_pass(apart) == cost.second_pass(tiny) == 1


def table_calls(config):
  return [cost.sampling_calls(c) for c in cost.columns(config).values()]


def test_the_papers_tables_in_network_calls():
  once_and_guided = 1 + 2 * 13  # w = 0 and thirteen others
  assert table_calls(load_config('imagenet64')) == 3 * [50_000 * 256 * once_and_guided]
  assert table_calls(load_config('imagenet128')) == [
    50_000 * t * once_and_guided for t in (128, 256, 1024)
  ]
  digits = load_config('digits')
  assert table_calls(digits) == [1000 * digits.sample.sampler.num_steps * 13]


def test_models_are_what_differs_in_more_than_sampling():
  models = [cost.num_models(cost.columns(load_config(name)).values()) for name in TABLES]
  assert models == [3, 1]


def test_memory_is_that_of_the_state_and_grows_with_the_images(tiny):
  n = 4 * unet.num_parameters(unet.of(tiny))
  two, eight = (cost.count_memory(tiny, images) for images in (2, 8))
  fixed = {k: v for k, v in two.items() if not k.startswith('activations')}
  assert list(fixed.values()) == [n, n, 2 * n, n]
  assert {k: eight[k] for k in fixed} == fixed
  kept = 'activations kept for the backward pass'
  assert eight[kept] == pytest.approx(4 * two[kept], rel=0.01)
  remat = load_config('digits', **TINY, **{'model.remat': True})
  assert cost.count_memory(remat, 8)[kept] < eight[kept] / 3


@pytest.mark.slow
def test_memory_against_the_compiler(tiny):
  few, many = 16, 256
  compiled = [cost.compiled_memory(tiny, n) for n in (few, many)]
  counted = [sum(cost.count_memory(tiny, n).values()) for n in (few, many)]
  assert compiled[0] > 4 * 4 * unet.num_parameters(unet.of(tiny))  # parameters, EMA, two moments
  slope = [np.diff(total)[0] / (many - few) for total in (compiled, counted)]
  assert 0.5 < slope[0] / slope[1] < 1.2


def test_hours_are_flops_over_the_rate(tiny, capsys):
  plan.show(tiny, device='a100-80', num_devices=4, mfu=0.25)
  out = capsys.readouterr().out
  flops = cost.image_flops(tiny)
  rate = 4 * 156e12 * 0.25 * 3600  # float32 arrays: TF32
  images = tiny.train.num_steps * tiny.train.batch_size
  assert last_number(out, 'training: 12 steps') == pytest.approx(
    images * flops.train.compiler / rate, rel=0.01
  )
  calls = tiny.sample.num_samples * tiny.sample.sampler.num_steps * 3  # w = 0 and w = 1
  assert last_number(out, 'sampling: 2 w') == pytest.approx(
    calls * flops.forward.compiler / rate, rel=0.01
  )
  one = last_number(out, 'all, in hours of one device')
  assert one == pytest.approx(4 * last_number(out, 'all, with 1 trained model'), rel=0.02)
  assert 'A100' in out and 'TF32' in out and 'Compiling' not in out


def test_more_than_the_device_has_is_said(tiny, capsys, monkeypatch):
  small = devices.DEVICES['l4']._replace(memory_gb=1e-4)
  monkeypatch.setitem(devices.DEVICES, 'l4', small)
  plan.show(tiny, device='l4', num_devices=1, mfu=0.4)
  assert (
    'take more train.microbatches, train.shard_optimizer, model.remat, more devices or'
    in capsys.readouterr().out
  )


def test_on_the_device_itself_the_compiler_is_asked(tiny, capsys, monkeypatch):
  monkeypatch.setattr(devices, 'of_kind', lambda kind: devices.DEVICES['l4'])
  monkeypatch.setattr(cost, 'compiled_memory', lambda *args: 5e9)  # itself a slow test
  plan.show(tiny, device='l4', num_devices=1, mfu=0.4)
  assert last_number(capsys.readouterr().out, 'all, as compiled for the device here') == 5


def last_number(text, row):
  return float(re.search(rf'^ +{re.escape(row)}.* ([\d.,e+-]+)$', text, re.M)[1].replace(',', ''))


@pytest.mark.parametrize(
  ('changes', 'kwargs', 'says'),
  [
    ({}, {'device': 'h900'}, r'--plan.device=h900 is none of v100, .*'),
    ({}, {'num_devices': 0}, r'--plan.devices=0 must be at least 1'),
    ({}, {'mfu': 40.0}, r'--plan.mfu=40.0 is a share'),
    ({}, {'num_devices': 3}, r'train.batch_size=16 must be a multiple of 3 devices'),
    ({'model.dtype': 'bfloat16'}, {'device': 'v100'}, r'no bfloat16: use --set model.dtype='),
  ],
)
def test_bad_plans_are_one_clear_line(changes, kwargs, says):
  config = load_config('digits', **TINY | changes)
  with pytest.raises(ValueError, match=says):
    plan.show(config, **{'device': 'h100', 'num_devices': 1, 'mfu': 0.4} | kwargs)


def test_devices_have_a_source_and_are_found_by_jaxs_names():
  for device in devices.DEVICES.values():
    assert device.source and device.memory_gb > 0 and device.bandwidth_gb_s > 0
    assert device.float32_tflops <= (device.bfloat16_tflops or np.inf)
    assert devices.of_kind(device.jax_kind) is device
  assert (
    devices.of_kind('TPU v5 lite').device == 'v5e' and devices.of_kind('TPU v5').device == 'v5p'
  )
  assert devices.of_kind('NVIDIA L40S') is None
  assert devices.DEVICES['h100'].peak_flops('bfloat16') == 989.5e12


def test_the_command_needs_no_workdir_for_a_plan_only(tmp_path):
  digits = ('cfg_jax.train', '--config', 'configs/digits.py')
  done = run(
    *digits, '--plan', '--plan.device=l4', '--plan.devices=2', f'--config.data.dir={tmp_path}'
  )
  assert done.returncode == 0, done.stderr
  assert '1,856,017' in done.stdout and '2 × NVIDIA L4' in done.stdout
  assert not list(tmp_path.iterdir())
  done = run(*digits)
  assert done.returncode == 2 and '--workdir' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.slow
def test_the_plan_of_adm_64_by_the_command():
  done = run('cfg_jax.train', '--config', 'configs/imagenet64.py', '--plan')
  assert done.returncode == 0, done.stderr
  assert last_number(done.stdout, 'all') == 295_900_035
  # The figure known for ADM-64, 104 GMACs, is without the products of attention: 103.4.
  assert 'GMACs: 105.5 by the compiler' in done.stdout  # of an accelerator's program
  assert 'with padding, 103.4 in' in done.stdout and 'and 6.22 in' in done.stdout
