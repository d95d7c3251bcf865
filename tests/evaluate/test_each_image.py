"""Numbers of each image: of the image itself and noise of its own, whatever the batch."""

import jax
import numpy as np
import pytest

from cfg_jax.core.progress import Progress
from cfg_jax.data import batches, registry
from cfg_jax.evaluate import each_image


@pytest.mark.parametrize('size', [2, 4, 100])
def test_of_those_images_and_their_own_noise_whatever_the_batch(tiny, size):
  source = registry.open_source(tiny.data)
  which = np.array([3, 40, 5, 700, 9, 1])

  def of_batch(params, batch, keys):
    noise = jax.vmap(jax.random.uniform)(keys)
    return {'sum': params['k'] * batch.x.sum((1, 2, 3)), 'noise': noise}

  progress = Progress('x', len(which), silent=True)
  got = each_image.values(of_batch, {'k': 2.0}, source, which, size, progress)
  images = batches.of_examples([source[int(i)] for i in which]).x
  np.testing.assert_allclose(got['sum'], 2 * np.asarray(images).sum((1, 2, 3)), rtol=1e-5)
  key = jax.random.key(each_image.SEED)
  own = [jax.random.uniform(jax.random.fold_in(key, i)) for i in which]
  np.testing.assert_array_equal(got['noise'], own)
