import numpy as np

from cfg_jax.data.prepare import images, speed


def test_photographs_are_patches_in_turn_and_rates_are_rates():
  first, second = (images.decode(jpeg, upright=False)[0] for jpeg in speed.photographs(2))
  assert first.shape == second.shape == (375, 500, 3)
  assert np.abs(first.astype(float) - second).mean() > 20  # of two different photographs
  rates = speed.measure(size=16, num_images=8)
  assert rates.keys() == {'prepare', 'read'}
  assert 1 < rates['prepare'] < rates['read'] < 1e6
