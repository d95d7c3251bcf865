"""The steps before a rule guides are the same for every w: computed once, and counted so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import files, processes, sharding
from cfg_jax.equations import conditioning, guidance, mixture, samplers
from cfg_jax.equations.guidance import pairs, rules
from cfg_jax.equations.samplers.loop import WHOLE, Part
from cfg_jax.generate import draw
from cfg_jax.generate.store import sample_sets
from cfg_jax.methods import drawing
from cfg_jax.methods.method import Request
from cfg_jax.plan import cost
from cfg_jax.sweep import grid, status
from tests.conftest import load_config
from tests.equations.solver_twins import FORMS
from tests.equations.test_rules_cost import MEANS
from tests.equations.test_samplers import keys_of

INTERVAL = ('sample.guidance.rule=interval', 'sample.guidance.lo=0', 'sample.guidance.hi=5')
SIXTEEN = (*INTERVAL, 'sample.sampler.num_steps=16')


def changed(config, form, *texts):
  name, own = FORMS[form]
  knobs = [f'sample.sampler.{knob}={value}' for knob, value in own.items()]
  return config_lib.change(config, [f'sample.sampler.name={name}', *knobs, *texts])


@pytest.mark.parametrize('form', FORMS)
def test_they_end_before_any_call_that_is_guided(tiny, form):
  """Two-stage solvers call the model between the points of the grid, too."""
  for lo, hi in ((-21, 3), (-19.9, 21), (-2, 3), (0.1, 5), (19.9, 21), (30, 31), (-31, -30)):
    texts = f'sample.guidance.lo={lo}', f'sample.guidance.hi={hi}'
    config = changed(tiny, form, *SIXTEEN, *texts)
    shared, calls = drawing.shared_steps(config), cost.shared_calls(config)
    lam = samplers.visited(config.sample.sampler, -20.0, 20.0)
    guided = (lo <= lam) & (lam < hi)
    assert not guided[:calls].any()
    per_step = 2 if form.startswith(('heun', '++2S')) else 1
    assert calls == per_step * shared
    assert shared == 15 or guided[calls : calls + per_step].any()


def test_they_end_before_a_step_whose_place_is_a_matter_of_rounding(tiny):
  lam = samplers.visited(config_lib.change(tiny, SIXTEEN).sample.sampler, -20.0, 20.0)
  texts = [f'sample.guidance.lo={float(np.nextafter(lam[5], np.float32(99)))!r}']
  assert drawing.shared_steps(config_lib.change(tiny, [*SIXTEEN, *texts])) == 5


@pytest.mark.parametrize(
  'texts',
  [
    ('sample.guidance.w=1',),
    ('sample.guidance.rule=classifier_free',),
    ('sample.guidance.rule=adaptive',),
    ('sample.guidance.rule=beta',),
    ('sample.guidance.pair=classifier_unconditional',),
    ('sample.guidance.rule=classifier_free', 'sample.sampler.name=smc'),
  ],
)
def test_there_are_none_for_one_w_and_where_the_config_does_not_tell(tiny, texts):
  assert drawing.shared_steps(config_lib.change(tiny, SIXTEEN)) == 8
  assert drawing.shared_steps(config_lib.change(tiny, [*SIXTEEN, *texts])) == 0


def test_images_are_the_same_to_the_bit_and_calls_are_those_that_are_counted(tiny):
  """In three programs: of all steps, of those that are shared, and of the others."""
  config = changed(tiny, '++2M', *SIXTEEN, 'sample.guidance.w=0,0.5,4', 'sample.num_samples=12')
  steps, lam, n, seen = drawing.shared_steps(config), samplers.lambda_grid(16), 12, []
  settings = samplers.settings_of(config.sample.sampler)

  def eps_fn(z, lam, cond):
    jax.debug.callback(lambda z: seen.append(len(z)), z)
    return mixture.exact_eps(z, lam, cond, means=jnp.asarray(MEANS), std=0.5)

  @jax.jit
  def of(part, w):
    pair = pairs.null(eps_fn, conditioning.given(jnp.arange(n) % 3))
    model = guidance.guide(pair, rules.interval, w=w, lo=0.0, hi=5.0)
    return samplers.sample_model(model, keys_of(np.arange(n)), (2,), lam, part=part, **settings)

  ws = [jnp.full(n, w) for w in config.sample.guidance.w]
  whole = [np.asarray(of(WHOLE, w)) for w in ws]
  jax.effects_barrier()
  seen.clear()
  carry = of(Part(until=steps), jnp.zeros(n))
  shared = [np.asarray(of(Part(steps, carry=carry), w)) for w in ws]
  jax.effects_barrier()
  np.testing.assert_array_equal(shared, whole)
  assert min(np.abs(a - b).max() for a, b in zip(whole, whole[1:])) > 1e-3
  assert (
    sum(seen) == cost.sampling_calls(config) == n * (8 + 3 * 8 + 2 * np.sum((0 <= lam) & (lam < 5)))
  )


def test_a_sweep_counts_them_once_for_what_any_w_lacks(tiny, tmp_path):
  config = config_lib.change(tiny, [*SIXTEEN, 'sample.guidance.w=0,0.5,4'])
  [model] = grid.runs_of(config, {'method.p_uncond': [0.1]})
  guided = cost.image_calls(config, 1.0) - cost.image_calls(config, 0.0)
  assert status.read(tmp_path, model).calls == 20 * (8 + 3 * 8 + 2 * guided)
  for sample_set, first in zip(sample_sets(config.sample, config.train.num_steps), (5, 5, 0)):
    here = 20 - first
    images, labels = np.zeros((here, 8, 8, 1), np.uint8), np.zeros(here, np.int32)
    sample_set.write(tmp_path / model.name, first, images, labels)
  assert status.read(tmp_path, model).calls == 5 * (8 + 2 * 8 + guided)


@pytest.fixture
def without_network(monkeypatch):
  """What was begun and drawn, by programs that compute nothing: an image is 10 i + w."""
  begun, drawn = [], []

  def begin(params, indices, value, seed):
    begun.append(np.asarray(indices))
    return {'z': indices}

  def go_on(params, indices, value, knobs, seed, carry, rows):
    i, w = np.asarray(indices), np.asarray(knobs['w'])
    np.testing.assert_array_equal(np.asarray(carry['z'])[np.asarray(rows)], i)
    drawn.append((i, w))
    return np.broadcast_to(
      (10 * i + w).astype(np.uint8)[:, None, None, None], (len(i), 8, 8, 1)
    ), {}

  monkeypatch.setattr(drawing, 'make_shared', lambda *_: (begin, go_on))
  monkeypatch.setattr(draw, 'load_params', lambda *_: (12, {}))
  return begun, drawn


def test_each_batch_of_indices_is_begun_once_and_goes_on_with_every_w(
  tiny, tmp_path, without_network
):
  begun, drawn = without_network
  config = config_lib.change(tiny, [*SIXTEEN, 'sample.guidance.w=0,1,4'])
  sets, size = (
    sample_sets(config.sample, 12),
    draw.images_at_once(config.sample, jax.device_count()),
  )
  images, labels = np.zeros((8, 8, 8, 1), np.uint8), np.zeros(8, np.int32)
  sets[1].write(tmp_path, 3, images, labels)  # of w = 1, images 3 to 10 are there
  draw.generate(config, tmp_path)
  assert [len(i) for i in begun] == [size] * -(-20 // size)
  np.testing.assert_array_equal(np.concatenate(begun)[:20], range(20))
  assert all(0 not in w or not w.any() for _, w in drawn)  # the unguided are by themselves
  pairs_drawn = {(i, w) for batch in drawn for i, w in zip(*batch)}
  assert pairs_drawn == {(i, w) for i in range(20) for w in (0, 1, 4) if w != 1 or not 3 <= i < 11}
  for sample_set in sets:
    found = np.concatenate([images for images, _ in sample_set.read(tmp_path, 20)])[:, 0, 0, 0]
    there = [10 * i + sample_set.w for i in range(20)]
    if sample_set.w == 1:
      there[3:11] = [0] * 8
    np.testing.assert_array_equal(found, there)
    assert files.read_json(tmp_path / sample_set.path / 'speed.json')['seconds_per_image'] > 0

  begun.clear()
  drawn.clear()
  lost = min((tmp_path / sets[2].path).glob('*.npz'))
  lost.unlink()
  draw.generate(config, tmp_path)
  assert lost.exists() and len(begun) == len(drawn) == 1


def test_of_several_processes_each_has_all_w_of_its_images(monkeypatch):
  missing = [(s, i) for s in 'abc' for i in range(5)]
  monkeypatch.setattr(processes, 'share', lambda items: items[: len(items) // 2])
  assert draw._share(missing, 3) == [(s, i) for s in 'abc' for i in range(2)]
  assert draw._share(missing, 0) == missing[:7]


def test_vdm_has_them_too():
  """By shapes alone: its images are x over a number, and its carry is not."""
  config = load_config('vdm_digits')
  method = methods.make(config, sharding.data_mesh())
  params = jax.eval_shape(functools.partial(method.init, 0)).params
  key = jax.random.split(jax.random.key(0), 8)
  request = Request(key, conditioning.given(jnp.arange(8)), {'w': jnp.zeros(8)}, Part(until=2))
  carry = jax.eval_shape(method.draw, params, request).x
  assert carry[0].shape == (8, 8, 8, 1)
  drawn = jax.eval_shape(method.draw, params, request._replace(part=Part(2, carry=carry)))
  assert drawn.x.shape == (8, 8, 8, 1)


@pytest.mark.slow
def test_a_networks_images_are_the_same_to_the_bit(tiny, tmp_path, monkeypatch):
  small = 'model.channel_mults=1', 'model.attention_resolutions=8'
  texts = 'sample.guidance.w=0,1,4', 'sample.sampler.num_steps=6', *small
  config = changed(tiny, 'heun, churn', *INTERVAL, *texts)
  rng, shapes = np.random.default_rng(0), methods.abstract_params(config, sharding.data_mesh())
  params = jax.tree.map(lambda a: np.float32(0.1 * rng.normal(size=a.shape)), shapes)
  monkeypatch.setattr(draw, 'load_params', lambda *_: (12, params))
  assert drawing.shared_steps(config) == 2
  draw.generate(config, tmp_path / 'shared')
  monkeypatch.setattr(drawing, 'shared_steps', lambda _: 0)
  draw.generate(config, tmp_path / 'each')
  for sample_set in sample_sets(config.sample, 12):
    a, b = (
      np.concatenate([x for x, _ in sample_set.read(tmp_path / s, 20)]) for s in ('shared', 'each')
    )
    np.testing.assert_array_equal(a, b)
    assert len(np.unique(a, axis=0)) == 20
