"""The network: the paper's size to the parameter, and ADM's conventions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.guidance import pairs
from cfg_jax.nets import unet

ADM_64 = unet.UNetConfig(
  image_shape=(64, 64, 3),
  num_classes=1000,
  channels=192,
  channel_mults=(1, 2, 3, 4),
  num_blocks=3,
  attention_resolutions=(32, 16, 8),
  head_channels=64,
  num_heads=None,
  dropout=0.1,
  norm_groups=32,
  dtype='float32',
  remat=False,
)
ADM_128 = dataclasses.replace(
  ADM_64,
  image_shape=(128, 128, 3),
  channels=256,
  channel_mults=(1, 1, 2, 3, 4),
  num_blocks=2,
  head_channels=None,
  num_heads=4,
  dropout=0.0,
)
SMALL = dataclasses.replace(
  ADM_64,
  image_shape=(8, 8, 3),
  num_classes=5,
  channels=16,
  channel_mults=(1, 2),
  num_blocks=1,
  attention_resolutions=(4,),
  head_channels=16,
  norm_groups=8,
)


@pytest.mark.parametrize('config, parameters', [(ADM_64, 295_900_035), (ADM_128, 421_523_715)])
def test_the_papers_networks_have_exactly_adms_parameters(config, parameters):
  assert unet.num_parameters(config) == parameters


def noisy_params(config):
  """Random values everywhere, so that no zero initialisation hides a path."""
  params = jax.jit(lambda: unet.create_params(config, 0))()
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return jax.tree.unflatten(
    tree, [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)]
  )


@pytest.fixture(scope='module')
def params():
  return noisy_params(SMALL)


Z = jax.random.normal(jax.random.key(2), (4, 8, 8, 3))
LAM = jnp.array([-20.0, -1.0, 3.0, 20.0])
C = jnp.array([0, 4, 5, 2])  # 5 is ∅


def cond(c):
  return Cond(c, c < SMALL.num_classes)


def call(params, config=SMALL, z=Z, lam=LAM, c=C, keys=None):
  return jax.jit(unet.apply_fn(config))(params, z, lam, cond(c), keys)


def test_a_new_network_says_zero():
  np.testing.assert_array_equal(call(unet.create_params(SMALL, 0)), 0)


def test_every_input_matters_and_samples_do_not_mix(params):
  eps = call(params)
  assert eps.shape == Z.shape and eps.dtype == jnp.float32
  for change in ({'z': Z.at[1].add(0.1)}, {'lam': LAM.at[1].add(0.5)}, {'c': C.at[1].set(5)}):
    moved = jnp.abs(call(params, **change) - eps).max(axis=(1, 2, 3))
    assert moved[1] > 1e-3
    np.testing.assert_allclose(np.delete(moved, 1), 0, atol=1e-5)


def test_null_is_a_flag_whatever_the_value(params):
  apply = jax.jit(unet.apply_fn(SMALL))
  null = [apply(params, Z, LAM, Cond(value, jnp.zeros(4, bool))) for value in (C, 0 * C)]
  np.testing.assert_array_equal(*null)
  assert jnp.abs(null[0] - call(params)).max() > 1e-3


def test_all_parameters_get_a_gradient(params):
  apply = unet.apply_fn(SMALL)
  grads = jax.jit(jax.grad(lambda p: jnp.mean(apply(p, Z, LAM, cond(C)) ** 2)))(params)
  dead = [
    jax.tree_util.keystr(path)
    for path, g in jax.tree_util.tree_leaves_with_path(grads)
    if not jnp.abs(g).max() > 0
  ]
  assert not dead


def test_remat_changes_nothing():
  plain = dataclasses.replace(SMALL, channel_mults=(1,), attention_resolutions=())
  params = noisy_params(plain)

  def grad(config):
    apply = unet.apply_fn(config)
    keys = jax.random.split(jax.random.key(3), len(Z))
    return jax.jit(jax.grad(lambda p: jnp.mean(apply(p, Z, LAM, cond(C), keys) ** 2)))(params)

  want, got = grad(plain), grad(dataclasses.replace(plain, remat=True))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), want, got)


def test_dropout_only_with_a_key(params):
  keys = jax.random.split(jax.random.key(0), len(Z))
  dropped = call(params, keys=keys)
  assert jnp.abs(dropped - call(params)).max(axis=(1, 2, 3)).min() > 1e-3
  alone = call(params, z=Z[1:2], lam=LAM[1:2], c=C[1:2], keys=keys[1:2])  # whatever is beside it
  np.testing.assert_allclose(alone, dropped[1:2], atol=1e-5)
  np.testing.assert_array_equal(call(params), call(params))


def test_bfloat16_keeps_float32_parameters_and_stays_near(params):
  eps = call(params)
  low = call(params, dataclasses.replace(SMALL, dtype='bfloat16'))
  assert low.dtype == jnp.float32
  error = jnp.linalg.norm(low - eps) / jnp.linalg.norm(eps)
  assert 1e-4 < error < 3e-2
  low_params = unet.create_params(dataclasses.replace(SMALL, dtype='bfloat16'), 0)
  assert {x.dtype for x in jax.tree.leaves(low_params)} == {jnp.dtype('float32')}


def test_group_norm_is_flaxs(params):
  x = 3 + 2 * jax.random.normal(jax.random.key(4), (4, 5, 5, 16))
  reference = nnx.GroupNorm(
    16, num_groups=8, epsilon=1e-5, use_fast_variance=False, rngs=nnx.Rngs(0)
  )
  ours = unet.GroupNorm(16, 8)
  scale, shift = jax.random.normal(jax.random.key(5), (2, 4, 16))
  want = reference(x) * (1 + scale[:, None, None]) + shift[:, None, None]
  np.testing.assert_allclose(ours(x, scale, shift), want, atol=2e-5)


@pytest.mark.parametrize('mean', (0.0, 10.0, 100.0, 1000.0, 3000.0))
def test_group_norm_is_exact_however_far_the_mean_is_from_zero(mean):
  """Value and gradient against float64; the first row is as far off as the rest, or farther."""
  rng = np.random.default_rng(0)
  x = (rng.normal(size=(2, 6, 6, 16)) + mean).astype(np.float32)
  x[:, 0, 0] += 5
  cotangent = rng.normal(size=x.shape).astype(np.float32)
  y, pullback = jax.vjp(unet.GroupNorm(16, 4), jnp.asarray(x))

  groups = (2, 36, 4, 4)
  centred = x.astype(np.float64).reshape(groups)
  centred -= centred.mean((1, 3), keepdims=True)
  deviation = np.sqrt(np.square(centred).mean((1, 3), keepdims=True) + 1e-5)
  want = centred / deviation
  g = cotangent.astype(np.float64).reshape(groups)
  along = (g * want).mean((1, 3), keepdims=True)
  of_x = (g - g.mean((1, 3), keepdims=True) - want * along) / deviation
  np.testing.assert_allclose(y, want.reshape(x.shape), atol=5e-6)
  np.testing.assert_allclose(pullback(cotangent)[0], of_x.reshape(x.shape), atol=5e-6)


def test_lambda_embedding_is_the_sinusoids_of_an_angle():
  lam = np.linspace(-20, 20, 41)
  t = 1000 * np.arctan(np.exp(-lam / 2)) / (np.pi / 2)
  angle = t[:, None] * 10_000.0 ** (-np.arange(8) / 8)
  want = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
  np.testing.assert_allclose(unet.embed_lambda(jnp.asarray(lam, jnp.float32), 16), want, atol=2e-4)


LATE = dataclasses.replace(SMALL, channel_mults=(1,), attention_resolutions=(), late_condition=2)


@pytest.fixture(scope='module')
def late_params():
  random = np.random.default_rng(0)
  abstract = jax.eval_shape(lambda: unet.create_params(LATE, 0))
  return jax.tree.map(lambda x: random.normal(0, 0.2, x.shape).astype(np.float32), abstract)


def test_both_passes_share_what_comes_before_the_class(late_params):
  """And are what two passes of all of the network are."""
  rows, twice = [], lambda x: jnp.repeat(x, 2, axis=0)
  with_null = jnp.stack([C, jnp.full_like(C, 5)], axis=1).ravel()
  whole = call(late_params, LATE, twice(Z), twice(LAM), with_null)
  want = whole[0::2], whole[1::2]

  @jax.jit
  def both(params, z, lam):
    parts = unet.eps_fn(LATE, params)
    counted = parts._replace(trunk=lambda z, lam: rows.append(len(z)) or parts.trunk(z, lam))
    return [p.eps for p in pairs.null(counted, cond(C))(z, lam)]

  got = both(late_params, Z, LAM)
  for a, b in zip(want, got):
    np.testing.assert_allclose(b, a, atol=1e-6 * jnp.abs(a).max())
  assert jnp.abs(want[0] - want[1]).max() > 1e-3
  assert rows == [len(Z)]


def test_the_class_is_told_to_the_stages_after_the_first_ones(late_params):
  """By which of them may hear any embedding: the trunk's two, or the one after those.

  Where all classes are alike, that changes nothing.
  """
  down, _, up = unet.num_stages(LATE)
  assert (down, up) == (1, 2)

  def moved(*heard):
    def silenced(path, x):
      stage = '/'.join(str(k.key) for k in path if hasattr(k, 'key'))
      hears = '/emb/' not in stage or stage.startswith(heard)
      return x if hears else jnp.zeros_like(x)

    params = jax.tree_util.tree_map_with_path(silenced, late_params)
    other = call(params, LATE, c=C.at[0].set(3))
    return jnp.abs(other - call(params, LATE)).max()

  assert moved('down', 'middle') == 0
  assert moved('up/0') > 1e-4
  alike = late_params | {'class_emb': jax.tree.map(jnp.zeros_like, late_params['class_emb'])}
  everywhere = dataclasses.replace(LATE, late_condition=0)
  np.testing.assert_allclose(call(alike, everywhere), call(alike, LATE), rtol=1e-5, atol=1e-6)
