"""VDM's network: what it begins as, what it sees, and a float64 twin of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.equations import conditioning
from cfg_jax.equations.conditioning import Cond
from cfg_jax.nets import embed, unet, vdm
from tests.nets.test_unet import SMALL

CONFIG = vdm.VDMConfig(
  image_shape=(5, 4, 2),
  num_classes=3,
  lambda_min=-5.0,
  lambda_max=13.3,
  channels=8,
  num_blocks=2,
  attend_always=False,
  fourier=(7, 8),
  dropout=0.0,
  norm_groups=4,
  dtype='float32',
  remat=False,
)
CIFAR10 = dataclasses.replace(
  CONFIG, image_shape=(32, 32, 3), channels=128, num_blocks=32, norm_groups=32
)


def inputs(n=4):
  random = np.random.default_rng(0)
  z = np.float32(random.normal(size=(n, 5, 4, 2)))
  lam = np.float32(random.uniform(-8, 15, n))
  return z, lam, Cond(jnp.arange(n) % 3, jnp.arange(n) % 2 == 0)


def random_params(config=CONFIG):
  """No zero initialisation hides a path."""
  random, params = np.random.default_rng(1), jax.eval_shape(lambda: vdm.create_params(config, 0))
  return jax.tree.map(lambda p: np.float32(random.normal(0, 0.3, p.shape)), params)


def test_epsilon_is_z_at_first():
  z, lam, cond = inputs()
  params = jax.jit(lambda: vdm.create_params(CONFIG, 0))()
  found = jax.jit(vdm.apply_fn(CONFIG))(params, z, lam, cond)
  np.testing.assert_array_equal(found, z)


def test_fourier_features_are_those_of_the_paper():
  z = np.random.default_rng(0).uniform(-4, 4, (3, 5, 4, 2))
  z = np.float32(z)
  found = embed.fourier_features(jnp.asarray(z), (7, 8))
  waves = [f(2.0**n * np.pi * np.float64(z)) for n in (7, 8) for f in (np.sin, np.cos)]
  np.testing.assert_allclose(found, np.concatenate([z, *waves], -1), atol=1e-6)
  assert embed.fourier_features(z, ()) is z


@pytest.mark.parametrize('attend_always', [False, True])
def test_is_its_float64_twin(attend_always):
  config = dataclasses.replace(CONFIG, attend_always=attend_always)
  z, lam, cond = inputs()
  params = random_params(config)
  found = jax.jit(vdm.apply_fn(config))(params, z, lam, cond)
  expected = twin(jax.tree.map(np.float64, params), np.float64(z), np.float64(lam), cond, config)
  np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
  assert np.abs(expected - z).max() > 1


def twin(params, z, lam, cond, config):
  """Written from the paper's appendix B and its table, not from the module."""
  silu = lambda x: x / (1 + np.exp(-x))  # noqa: E731

  def dense(p, x):
    return x @ p['kernel'] + p.get('bias', 0)

  def conv(p, x):
    k = p['kernel']
    pad = k.shape[0] // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    h, w = x.shape[1:3]
    shifts = [(i, j) for i in range(k.shape[0]) for j in range(k.shape[1])]
    return p['bias'] + sum(padded[:, i : i + h, j : j + w] @ k[i, j] for i, j in shifts)

  def norm(p, x):
    grouped = x.reshape(len(x), -1, 4, x.shape[-1] // 4)
    mean, var = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    return ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * p['scale'] + p['bias']

  def attend(p, x):
    q, k, v = np.split(dense(p['qkv'], norm(p['norm'], x).reshape(len(x), -1, x.shape[-1])), 3, -1)
    logits = q @ k.swapaxes(1, 2) / np.sqrt(x.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return x + dense(p['proj'], weights / weights.sum(-1, keepdims=True) @ v).reshape(x.shape)

  def block(p, x):
    h = conv(p['conv_in'], silu(norm(p['norm_in'], x))) + dense(p['emb'], emb)[:, None, None]
    h = conv(p['conv_out'], silu(norm(p['norm_out'], h)))
    x = h + (conv(p['skip'], x) if 'skip' in p else x)
    return attend(p['attention'], x) if 'attention' in p else x

  t = 1000 * (13.3 - lam) / 18.3
  angle = t[:, None] * 10_000.0 ** (-np.arange(4) / 4)
  emb = dense(params['lambda_in'], np.concatenate([np.cos(angle), np.sin(angle)], 1))
  rows = params['class_emb']['embedding'][np.where(cond.given, cond.value, 3)]
  emb = silu(dense(params['lambda_out'], silu(emb)) + rows)
  waves = [f(2.0**n * np.pi * z) for n in config.fourier for f in (np.sin, np.cos)]
  h = conv(params['conv_in'], np.concatenate([z, *waves], -1))
  skips = [h]
  for i in range(2):
    h = block(params['down'][i], h)
    skips.append(h)
  assert 'attention' in params['middle'][0] and 'attention' not in params['middle'][1]
  h = block(params['middle'][1], block(params['middle'][0], h))
  for i in range(3):
    h = block(params['up'][i], np.concatenate([h, skips.pop()], -1))
  return z + conv(params['conv_out'], silu(norm(params['norm_out'], h)))


def test_a_class_changes_it_and_null_hides_the_class():
  z, lam, _ = inputs(3)
  apply, params = jax.jit(vdm.apply_fn(CONFIG)), random_params()
  classes = [jnp.full(3, c) for c in (0, 1)]
  given = [apply(params, z, lam, conditioning.given(c)) for c in classes]
  hidden = [apply(params, z, lam, conditioning.null(conditioning.given(c))) for c in classes]
  assert np.abs(given[0] - given[1]).max() > 0.01
  np.testing.assert_array_equal(*hidden)


def test_remat_changes_nothing_and_dropout_is_each_samples_own():
  z, lam, cond = inputs()
  config = dataclasses.replace(CONFIG, dropout=0.5)
  params, keys = random_params(), jax.random.split(jax.random.key(0), 4)
  found = jax.jit(vdm.apply_fn(config))(params, z, lam, cond, keys)
  again = jax.jit(vdm.apply_fn(dataclasses.replace(config, remat=True)))(params, z, lam, cond, keys)
  np.testing.assert_allclose(found, again, rtol=1e-4, atol=1e-4)
  other = jax.jit(vdm.apply_fn(config))(params, z, lam, cond, keys[np.array([0, 3, 2, 1])])
  same = np.abs(found - other).max((1, 2, 3)) < 1e-4
  assert same.tolist() == [True, False, True, False]


def test_parameters_of_cifar10():
  """By arithmetic from the facts: 32 + 2 + 33 blocks of width c, c = 128, and what is around."""
  c, classes = 128, 3
  norm = lambda n: 2 * n  # noqa: E731
  conv = lambda n, m, k=3: k * k * n * m + m  # noqa: E731
  block = lambda n: norm(n) + conv(n, c) + 4 * c * c + norm(c) + conv(c, c)  # noqa: E731
  expected = 34 * block(c) + 33 * (block(2 * c) + conv(2 * c, c, 1))
  expected += norm(c) + conv(c, 3 * c, 1) + conv(c, c, 1)  # attention
  expected += conv(3 * 5, c) + norm(c) + conv(c, 3)
  expected += (c + 1) * 4 * c + (4 * c + 1) * 4 * c + (classes + 1) * 4 * c
  assert vdm.num_parameters(CIFAR10) == expected


def test_the_unet_sees_fourier_features_where_asked():
  """A change of z by a period of the first feature, 2^−6, changes nothing else so much."""
  config = dataclasses.replace(SMALL, fourier=(7, 8))
  params = jax.jit(lambda: unet.create_params(config, 0))()
  assert params['conv_in']['kernel'].shape[2] == 15
  plain = jax.eval_shape(lambda: unet.create_params(SMALL, 0))
  assert plain['conv_in']['kernel'].shape[2] == 3
  params['conv_in']['kernel'] = params['conv_in']['kernel'].at[:, :, :3].set(0)  # z itself
  params['conv_out']['kernel'] += 0.1
  z, apply = jnp.full((2, 8, 8, 3), 0.25), jax.jit(unet.apply_fn(config))
  lam, cond = jnp.zeros(2), conditioning.given(jnp.zeros(2, jnp.int32))
  first, period, half = (apply(params, z + d, lam, cond) for d in (0, 2.0**-6, 2.0**-8))
  np.testing.assert_allclose(first, period, atol=1e-4)
  assert np.abs(first - half).max() > 1e-2
