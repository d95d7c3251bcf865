"""What x̃ is clipped to."""

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion


def clip(x: jax.Array, *, quantile: float = 0.0) -> jax.Array:
  """X in [−s, s], divided by s: s is the quantile of an image's |x|, at least 1; 1 for quantile 0.

  Dynamic thresholding, with 0.995 (Saharia et al. 2022, section 2.3): strong guidance then does not
  drive every pixel to its limit. x: (B, …).
  """
  if not quantile:
    return jnp.clip(x, -1, 1)
  s = jnp.quantile(jnp.abs(x).reshape(len(x), -1), quantile, axis=1)
  s = diffusion.over_batch(jnp.maximum(s, 1), x)
  return jnp.clip(x, -s, s) / s
