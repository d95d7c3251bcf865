"""λ ↔ ADM's discrete times, against the published schedules."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.nets import embed as embedding

ADM = ('adm_cosine', 'adm_linear')


def sinusoids(t, dim):
  angle = np.asarray(t)[:, None] * 10_000.0 ** (-np.arange(dim // 2) / (dim // 2))
  return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def test_adm_lambdas_are_the_published_schedules():
  alpha2 = 1 / (1 + np.exp(-embedding.adm_lambdas('adm_linear')))
  np.testing.assert_allclose(alpha2[0], 1 - 1e-4, rtol=1e-12)
  np.testing.assert_allclose(1 - alpha2[1:] / alpha2[:-1], np.linspace(1e-4, 0.02, 1000)[1:])
  # Without the bound on the last step, the products of the cosine schedule telescope.
  alpha2 = 1 / (1 + np.exp(-embedding.adm_lambdas('adm_cosine')))
  f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
  np.testing.assert_allclose(alpha2[:-1], f[1:-1] / f[0], rtol=1e-9)
  np.testing.assert_allclose(alpha2[-1], 0.001 * alpha2[-2], rtol=1e-9)


@pytest.mark.parametrize('schedule', ADM)
def test_adms_lambdas_give_its_whole_times(schedule):
  lam = embedding.adm_lambdas(schedule)
  assert lam.shape == (1000,) and np.all(np.diff(lam) < 0)
  got = embedding.embed_lambda(jnp.asarray(lam, jnp.float32), 32, schedule)
  np.testing.assert_allclose(got, sinusoids(np.arange(1000), 32), atol=1e-3)


@pytest.mark.parametrize('schedule', ADM)
def test_between_them_time_is_linear_in_lambda_and_beyond_them_it_stays(schedule):
  lam = embedding.adm_lambdas(schedule)
  asked = np.array([0.75 * lam[400] + 0.25 * lam[401], lam[0] + 5, lam[-1] - 5], np.float32)
  got = embedding.embed_lambda(jnp.asarray(asked), 32, schedule)
  np.testing.assert_allclose(got, sinusoids([400.25, 0, 999], 32), atol=1e-3)
