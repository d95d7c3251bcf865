"""Placement: which axis is split."""

import pytest

from cfg_jax.core import sharding


@pytest.mark.parametrize(
  ('shape', 'axis'),
  [
    ((3, 3, 16, 64), 3),
    ((64, 24), 0),
    ((1001, 768), 1),  # the largest does not divide
    ((8, 8), 0),
    ((12,), None),
    ((), None),
  ],
)
def test_the_largest_axis_that_the_devices_divide_is_split(shape, axis):
  assert sharding.split_axis(shape, 8) == axis
