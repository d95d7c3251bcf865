"""Sizes beyond the memory here, told before they are allocated: a system kills for those."""

import math
import os
from typing import Any

import jax

from cfg_jax.core.errors import UserError


def available() -> int:
  """Bytes of all devices of this process: on a CPU, of the machine."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] * jax.local_device_count()
  return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def check(
  state: Any, images: int, image_shape: tuple[int, ...], channels: int, batch_field: str
) -> None:
  """Raises UserError where arrays and images of a batch need more than there is, at the very least.

  state: a tree of arrays, held once. images: those at once, of image_shape (H, W, C), of which the
  first level of a network has `channels` twice, in two bytes each. batch_field: what sets images.
  """
  have = available()
  arrays = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
  pixels = images * math.prod(image_shape[:2]) * 4 * channels
  if arrays > have:
    raise UserError(
      f"model.channels={channels}: the network's arrays take {arrays / 1e9:,.0f} GB, and there are "
      f'{have / 1e9:,.0f} GB of memory here: use fewer channels or blocks.'
    )
  if arrays + pixels > have:
    raise UserError(
      f'{batch_field}: {images:,} images at once take {(arrays + pixels) / 1e9:,.0f} GB or '
      f'more, and there are {have / 1e9:,.0f} GB of memory here: use a smaller batch.'
    )
