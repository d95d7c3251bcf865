"""Models that differ in p_uncond and the seed alone are trained by one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import runtime, sharding
from cfg_jax.data.batches import Batch
from cfg_jax.equations import conditioning
from cfg_jax.nets import encoder, unet, vdm
from cfg_jax.train import loop
from tests.conftest import load_config


@pytest.fixture
def small(monkeypatch):
  """Networks of one number, drawn from the seed: their steps compile at once."""

  def eps(params, z, lam, cond, keys=None):
    return params['a'] * z * cond.given[:, None, None, None]

  def logits(params, z, lam, keys=None):
    return params['a'] * jnp.ones((len(z), 10)), None

  for module, apply in ((unet, eps), (vdm, eps), (encoder, logits)):
    monkeypatch.setattr(module, 'apply_fn', lambda network, apply=apply: apply)
    draw = lambda network, seed: {'a': jax.random.normal(jax.random.key(seed))}  # noqa: E731
    monkeypatch.setattr(module, 'create_params', draw)


@pytest.mark.parametrize('name', ['digits', 'vdm_digits', 'classifier_digits'])
def test_the_program_knows_no_setting(name, small):
  def lowered(*changes):
    method = methods.make(config_lib.change(config, changes), sharding.data_mesh())
    state = jax.eval_shape(method.init, method.settings['seed'])
    batch = Batch(jnp.zeros((16, 8, 8, 1)), conditioning.given(jnp.zeros(16, jnp.int32)))
    return jax.jit(method.step).lower(state, batch, method.settings).as_text()

  config = load_config(name)
  dropped = ['method.p_uncond=0.5'] if 'p_uncond' in config.method else []
  assert lowered() == lowered('seed=3', *dropped)
  assert lowered() != lowered('train.learning_rate=0.5')


@pytest.mark.parametrize('p_uncond', [0.0, 0.1, 0.5, 1.0])
def test_a_traced_probability_drops_the_same_conditions(p_uncond):
  key, cond = jax.random.key(0), conditioning.given(jnp.arange(10_000))
  known = jax.jit(lambda: conditioning.drop(key, cond, p_uncond))().given
  traced = jax.jit(conditioning.drop)(key, cond, np.float32(p_uncond)).given
  np.testing.assert_array_equal(known, traced)
  assert known.mean() == pytest.approx(1 - p_uncond, abs=0.02 * (0 < p_uncond < 1))


@pytest.mark.parametrize('name', ['digits', 'vdm_digits'])
def test_a_step_drops_as_many_classes_as_its_config_says(name, small):
  """A network that hears of nothing but whether there is a class: its gradient counts them."""

  def grad_norm(p_uncond):
    config = config_lib.change(load_config(name), [f'method.p_uncond={p_uncond}'])
    method = methods.make(config, sharding.data_mesh())
    batch = Batch(jnp.zeros((16, 8, 8, 1)), conditioning.given(jnp.zeros(16, jnp.int32)))
    _, metrics = jax.jit(method.step)(method.init(0), batch)
    return float(metrics['grad_norm'].total)

  found = [grad_norm(p) for p in (0.0, 0.5, 1.0)]
  assert len(set(found)) == 3
  assert name == 'vdm_digits' or found[2] == 0  # VDM's schedule learns without classes, too


def test_a_sweeps_second_model_compiles_nothing(tiny, tmp_path, small):
  def trained(name, *changes):
    before = runtime.programs.copy()
    changes = ('train.num_steps=2', 'train.log_every=1', *changes)
    loop.train(config_lib.change(tiny, changes), tmp_path / name)
    losses = [line.split()[3] for line in (tmp_path / name / 'metrics.jsonl').open()]
    return runtime.programs - before, losses

  _, first = trained('first')
  programs, other = trained('second', 'seed=3', 'method.p_uncond=0.5')
  assert programs['asked for'] == programs['from the cache'] > 1
  assert first != other
