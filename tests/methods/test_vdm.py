"""VDM as a method: what a step descends, its own grid, and that a resumed run repeats it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.core.errors import UserError
from cfg_jax.data.batches import Batch
from cfg_jax.equations import conditioning, gamma
from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate import owners
from cfg_jax.methods.method import Request
from cfg_jax.train.loop import train
from tests.conftest import load_config

TINY = {
  'model.channels': 8,
  'model.num_blocks': 1,
  'model.norm_groups': 4,
  'train.batch_size': 16,
  'train.num_steps': 8,
  'train.log_every': 2,
  'train.checkpoint_every': 4,
  'train.warmup_steps': 2,
  'sample.sampler.num_steps': 4,
}


@pytest.fixture
def config(data_dir):
  return load_config('vdm_digits', **TINY, **{'data.dir': str(data_dir)})


def batch(n=16):
  levels = np.round(np.arange(17) * 255 / 16).astype(np.float32) / 127.5 - 1
  x = levels[np.random.default_rng(0).integers(0, 17, (n, 8, 8, 1))]
  return Batch(jnp.asarray(x), conditioning.given(jnp.arange(n) % 10))


def made(config, seed=0):
  """The method, and a state whose parameters are random everywhere."""
  method = methods.make(config, sharding.data_mesh())
  state = jax.jit(method.init, static_argnums=0)(seed)
  random = np.random.default_rng(0)
  noisy = lambda p: p + np.float32(random.normal(0, 0.1, p.shape))  # noqa: E731
  params = jax.tree.map(noisy, state.params)
  return method, state._replace(params=params, ema=jax.tree.map(jnp.copy, params))


@pytest.mark.parametrize(
  ('num_steps', 'schedule'), [(None, 'fixed'), (5, 'linear'), (None, 'network'), (5, 'network')]
)
def test_players_and_metrics(config, schedule, num_steps):
  config.method.schedule = schedule
  with config.method.ignore_type():
    config.method.num_steps = num_steps
  method, state = made(config)
  new, metrics = jax.jit(method.step)(state, batch())
  players = {'network'} | ({'schedule'} if schedule != 'fixed' else set())
  assert state.params.keys() == new.opt_state.keys() == new.ema.keys() == players
  told = {k: float(m.total / m.count) for k, m in metrics.items() if m.count}
  assert told['loss'] == pytest.approx(told['prior'] + told['reconstruction'] + told['diffusion'])
  assert told['prior'] > 0 and told['reconstruction'] > 0
  for (path, a), b in zip(jax.tree.leaves_with_path(state.params), jax.tree.leaves(new.params)):
    assert np.any(a != b), path  # everything learns
  if schedule == 'fixed':
    assert (told['gamma_0'], told['gamma_1']) == (-8, 5)


@pytest.mark.slow
def test_microbatches_change_nothing(config):
  found = []
  for microbatches in (1, 4):
    config.train.microbatches = microbatches
    method, state = made(config)
    found.append(jax.device_get(jax.jit(method.step)(state, batch())[1]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *found)


def test_biases_and_the_schedule_do_not_decay(config):
  """With a rate of decay of 1000 all else is pulled far beyond what Adam moves."""
  config.train.weight_decay, config.train.warmup_steps = 1000.0, 0
  config.method.schedule_rate = 1.0
  method, state = made(config)
  new, _ = jax.jit(method.step)(state, batch())
  for (path, a), b in zip(jax.tree.leaves_with_path(state.params), jax.tree.leaves(new.params)):
    name = jax.tree_util.keystr(path, simple=True, separator='.')
    decays = name.startswith('network') and not name.endswith('bias')
    assert (np.abs(a - b).max() > 2.5 * config.train.learning_rate) == decays, name


def test_the_learned_grid_is_that_of_the_parameters_at_hand(config):
  """The same images as from the λ themselves, given one by one; guided too."""
  method, state = made(config)
  state.params['schedule']['ends'] = {'gamma_0': jnp.float32(-7.5), 'span': jnp.float32(12)}
  ends = -config.diffusion.lambda_max, -config.diffusion.lambda_min
  lam = np.asarray(gamma.lambda_grid(state.params['schedule'], 4, ends))
  request = Request(
    jax.random.split(jax.random.key(0), 8),
    conditioning.given(jnp.arange(8)),
    {'w': jnp.full(8, 0.5)},
  )
  found = jax.jit(method.draw)(state.params, request)
  listed = load_config('vdm_digits', **TINY, **{'sample.sampler.grid': 'listed'})
  listed.sample.sampler.lambdas = tuple(map(float, lam))
  expected = jax.jit(methods.make(listed, sharding.data_mesh()).draw)(state.params, request)
  np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
  other = jax.tree.map(lambda p: p + 0.3, state.params['schedule'])
  moved = jax.jit(method.draw)(state.params | {'schedule': other}, request)
  assert np.abs(found.x - moved.x).max() > 1e-3


@pytest.mark.slow
def test_our_unet_is_a_network_of_it(config):
  digits = load_config('digits', **{'model.channels': 8, 'model.head_channels': 8})
  changed = config.copy_and_resolve_references().unlock()
  changed.model = digits.model.copy_and_resolve_references().unlock()
  changed.model.norm_groups, changed.model.fourier = 4, (3, 4)
  changed.method.network = 'unet'
  config_lib.check(changed, owners.of(changed), 1)
  method, state = made(changed)
  _, metrics = jax.jit(method.step)(state, batch())
  assert np.isfinite(metrics['loss'].total)


def saved(workdir, config):
  abstract = jax.eval_shape(lambda: methods.make(config, sharding.data_mesh()).init(config.seed))
  everywhere = sharding.replicated(sharding.data_mesh())
  return Checkpoints(workdir).restore(sharding.abstract(abstract, everywhere))[0]


@pytest.mark.slow
def test_resume_is_bit_exact_and_held_out_digits_are_scored(config, tmp_path, call):
  parts, whole = tmp_path / 'parts', tmp_path / 'whole'
  for num_steps in (5, 8):
    config.train.num_steps = num_steps
    train(config, parts)
  train(config, whole)
  found, expected = (saved(folder, config) for folder in (parts, whole))
  assert int(found.step) == 8 and 'interior' in found.params['schedule']
  jax.tree.map(np.testing.assert_array_equal, found, expected)

  done = call(evaluate, 'held_out', '--workdir', whole)
  assert done.returncode == 0, done.stderr
  assert 'step 8: 360 images of digits (train, every 5th)' in done.stdout
  assert 'bits_per_dim ' in done.stdout and '±' in done.stdout and 'accuracy' in done.stdout
  once = (whole / 'scores.jsonl').read_bytes()
  again = call(evaluate, 'held_out', '--workdir', whole)
  assert again.stdout.splitlines() == [x for x in done.stdout.splitlines() if ' it, ' not in x]
  assert (whole / 'scores.jsonl').read_bytes() == once


BAD = {
  'levels': ({'method.levels': 5}, 'method.levels=5 are not those of digits: use 17 or 256.'),
  'steps': (
    {'method.num_steps': 0},
    'method.num_steps=0 must be the number T of steps, at least 1',
  ),
  'ends': ({'diffusion.lambda_min': 9.0}, 'diffusion.lambda_min=9.0 must be less than'),
  'schedule': ({'method.schedule': 'cosine'}, "method.schedule='cosine' is none of fixed, linear"),
  'network': ({'method.network': 'mlp'}, "method.network='mlp' is none of vdm, unet."),
  'fourier': ({'model.fourier': (7, 99)}, 'model.fourier=(7, 99) must be whole numbers, -4 to 16'),
}


@pytest.mark.parametrize('what', BAD)
def test_what_is_wrong_is_told_in_one_line(what):
  changes, message = BAD[what]
  config = load_config('vdm_digits', **changes)
  with pytest.raises(UserError) as error:
    config_lib.check(config, owners.of(config), 1)
  assert str(error.value).startswith(message) and '\n' not in str(error.value)


def test_a_network_without_a_schedule_has_no_learned_grid():
  config = load_config('digits', **{'sample.sampler.grid': 'learned'})
  with pytest.raises(UserError) as error:
    config_lib.check(config, owners.of(config), 1)
  assert str(error.value) == (
    "sample.sampler.grid='learned' is of a network that has learned its schedule, of method vdm: "
    'use another grid.'
  )
