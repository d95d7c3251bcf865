"""Bits per dimension of images of a known law, by the ε̂ that is exact with and without class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.data.batches import Batch
from cfg_jax.equations import conditioning, diffusion, samplers
from cfg_jax.methods import likelihood

# Two pixels of four levels: class 0 has the first three images, class 1 the others.
LEVELS = np.float32([-1, -1 / 3, 1 / 3, 1])
IMAGES = LEVELS[np.array([[0, 0], [1, 1], [2, 2], [3, 0], [0, 3], [2, 1]])]
P = np.array([[0.5, 0.25, 0.25, 0, 0, 0], [0, 0, 0, 0.6, 0.2, 0.2]])


def exact_eps(z, lam, cond):
  alpha, sigma = (a[:, None] for a in diffusion.alpha_sigma(lam))
  flat = z.reshape(len(z), 2)
  p = jnp.where(cond.given[:, None], jnp.asarray(P)[cond.value], jnp.asarray(P).mean(0))
  log_p = (
    jnp.log(p + 1e-30)
    - jnp.sum(jnp.square((flat[:, None] - alpha[..., None] * IMAGES) / sigma[..., None]), -1) / 2
  )
  return ((flat - alpha * (jax.nn.softmax(log_p) @ IMAGES)) / sigma).reshape(z.shape)


def scores(n, p_uncond=0.5, num_classes=2, measures=None, images=tuple(range(6))):
  """Each of the images n times, its class its own."""
  which = np.repeat(images, n)
  batch = Batch(
    jnp.asarray(IMAGES[which].reshape(-1, 2, 1, 1)),
    conditioning.given(jnp.asarray(which // 3, jnp.int32)),
  )
  keys = jax.random.split(jax.random.key(0), len(which))
  measures = measures or {'': likelihood.of_ends(-7.0, 10.0)}

  @jax.jit
  def scored(batch, keys):
    given = jnp.asarray(LEVELS), measures, p_uncond, num_classes
    return likelihood.scores(exact_eps, batch, keys, *given)

  return {k: np.float64(v).reshape(-1, n) for k, v in scored(batch, keys).items()}


def test_is_minus_log_p_given_the_class_and_not_and_classifies():
  found = scores(200)
  own = -np.log2(np.concatenate([P[0, :3], P[1, 3:]])) / 2  # two dimensions
  for name, exact in (('bits_per_dim', own), ('bits_per_dim_null', own + 0.5)):
    error = found[name].std(1) / np.sqrt(200)
    assert np.all(np.abs(found[name].mean(1) - exact) < 4.5 * error + 2e-3)
  parts = found['prior'] + found['reconstruction'] + found['diffusion']
  np.testing.assert_allclose(parts, found['bits_per_dim'], rtol=1e-5, atol=1e-5)
  assert found['accuracy'].mean() > 0.95
  assert set(found['accuracy'].ravel()) <= {0.0, 1.0}


def test_of_a_grid_it_is_the_bound_of_its_steps():
  """Twenty steps cost more than continuous time, and as many as the equation for them says."""
  lam = samplers.lambda_grid(21, 'uniform', -7.0, 10.0)
  measures = {'': likelihood.of_ends(-7.0, 10.0), '_T': likelihood.of_grid(lam)}
  found = scores(100, measures=measures)
  assert found['bits_per_dim_T'].mean() > found['bits_per_dim'].mean() + 0.05
  assert found['bits_per_dim_T_null'].mean() > found['bits_per_dim_T'].mean() + 0.3
  gamma = likelihood.of_grid(lam).gamma_fn(jnp.linspace(0, 1, 21))
  np.testing.assert_allclose(gamma, -lam[::-1], atol=1e-5)


@pytest.mark.parametrize(
  ('p_uncond', 'num_classes', 'names'),
  [
    (0.0, 2, {'bits_per_dim', 'accuracy'}),
    (1.0, 2, {'bits_per_dim_null'}),
    (0.5, 21, {'bits_per_dim', 'bits_per_dim_null'}),
  ],
)
def test_scores_what_was_learned(p_uncond, num_classes, names):
  parts = {'prior', 'reconstruction', 'diffusion'}
  assert scores(1, p_uncond, num_classes).keys() == names | parts


def test_an_images_scores_do_not_depend_on_the_others():
  of_all, of_some = scores(1), scores(1, images=(0, 1))
  for name, values in of_some.items():
    np.testing.assert_allclose(values, of_all[name][:2], rtol=2e-4, atol=1e-5)
