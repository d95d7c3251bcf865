"""What held-out images cost by a network's bound: bits per dimension, given their class or not.

log p(x|c) − log p(x) = log p(c|x) − log p(c), so the bounds of all classes are a classifier too.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.data.batches import Batch
from cfg_jax.equations import bound, conditioning
from cfg_jax.equations.bound import Bound, GammaFn

TIMES = 16  # of each image, antithetic
MOST_CLASSES = 20  # with more, no image is classified: each class is TIMES calls of the network


class Measure(NamedTuple):
  """Which bound: γ(t), and of how many steps, None being continuous time."""

  gamma_fn: GammaFn
  num_steps: int | None


def of_grid(lam: jax.Array) -> Measure:
  """The bound of DDPM's T − 1 steps (v = 0) along lam (T,), increasing, and of the decoder."""
  steps = len(lam) - 1
  times = np.arange(steps + 1) / steps
  return Measure(lambda t: jnp.interp(t, times, -lam[::-1]), steps)


def of_ends(lambda_min: float, lambda_max: float) -> Measure:
  """The bound in continuous time between two λ, at λ that are spread evenly."""
  return Measure(lambda t: (lambda_max - lambda_min) * t - lambda_max, None)


def scores(
  eps_fn: Callable,
  batch: Batch,
  keys: jax.Array,
  levels: jax.Array,
  measures: Mapping[str, Measure],
  p_uncond: float,
  num_classes: int,
) -> dict[str, jax.Array]:
  """Bits per dimension of each image, (B,), by each of measures; and whether it is classified.

  `bits_per_dim` and what measures add to that name are given the class, and with `_null` not, as
  far as p_uncond says that the network has learned either; `prior`, `reconstruction` and
  `diffusion` are the parts of the first measure's. `accuracy` is 1 where the image's own class has
  its least bound, all from the same noise. batch.x: of values `levels`; keys: (B,); num_classes: 0
  classifies none.
  """
  x, cond = batch
  given, null = p_uncond < 1, p_uncond > 0
  found = {}
  for first, (suffix, measure) in zip([True] + [False] * len(measures), measures.items()):

    def parts(cond, measure=measure):
      bits = _mean_bound(eps_fn, x, cond, keys, levels, measure)
      return Bound(*(bound.bits_per_dim(nats, x.shape[1:]) for nats in bits))

    own = parts(cond) if given else None
    of_null = parts(conditioning.null(cond)) if null else None
    if given:
      found[f'bits_per_dim{suffix}'] = own.total
    if null:
      found[f'bits_per_dim{suffix}_null'] = of_null.total
    if first:
      found |= (own or of_null)._asdict()
      if given and 0 < num_classes <= MOST_CLASSES:
        of_class = lambda c: parts(cond._replace(value=jnp.full_like(cond.value, c)))  # noqa: E731
        diffusion = jax.lax.map(lambda c, f=of_class: f(c).diffusion, jnp.arange(num_classes))
        found['accuracy'] = (jnp.argmin(diffusion, axis=0) == cond.value).astype(jnp.float32)
  return found


def _mean_bound(eps_fn, x, cond, keys, levels, measure):
  """The mean over TIMES antithetic times, whose noise is each image's own: nats."""
  u = jax.vmap(jax.random.uniform)(keys)

  def at(j):
    k_0, k_eps = (
      jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys) for i in (2 * j, 2 * j + 1)
    )
    eps_0, eps = (jax.vmap(lambda k: jax.random.normal(k, x.shape[1:]))(ks) for ks in (k_0, k_eps))
    t = jnp.mod(u + j / TIMES, 1)
    return bound.at(eps_fn, x, cond, measure.gamma_fn, t, eps_0, eps, measure.num_steps, levels)

  return jax.tree.map(lambda a: jnp.mean(a, axis=0), jax.lax.map(at, jnp.arange(TIMES)))
