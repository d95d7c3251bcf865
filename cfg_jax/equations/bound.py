"""The bound on −log p(x) of Kingma et al. 2021, Variational Diffusion Models, in nats by part.

Their γ is −λ: here a function of t ∈ [0, 1] that increases from γ_0, near the data, to γ_1, near
noise. Everything is a sum over a sample's dimensions, in float32 on γ ∈ [−20, 20] too: no
1 − e^δ, no density of a Gaussian for a decoder, no difference of large numbers.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.conditioning import Cond

EpsFn = Callable[[jax.Array, jax.Array, Cond], jax.Array]
GammaFn = Callable[[jax.Array], jax.Array]
Weight = Callable[[jax.Array], jax.Array]


class Bound(NamedTuple):
  """The three parts of an upper bound on −log p(x), nats, (B,) each. Equation 11."""

  prior: jax.Array  # KL(q(z_1|x) ‖ N(0, I))
  reconstruction: jax.Array  # E[−log p(x|z_0)]
  diffusion: jax.Array  # L_T or L_∞

  @property
  def total(self) -> jax.Array:
    """Their sum, (B,)."""
    return self.prior + self.reconstruction + self.diffusion


def vlb(
  eps_fn: EpsFn,
  key: jax.Array,
  x: jax.Array,
  cond: Cond,
  gamma_fn: GammaFn,
  *,
  num_steps: int | None = None,
  levels: int | jax.Array = 256,
  weight: Weight | None = None,
) -> Bound:
  """An unbiased estimate of the bound of every sample, from one t each, antithetic over the batch.

  eps_fn: (z (B, …), lam (B,), cond) → (B, …); x: (B, …), each value one of `levels`, see
  `level_values`; gamma_fn: t (B,) → γ (B,), increasing; num_steps: T, or None for continuous time,
  which takes γ' from `jax.jvp`; weight: of λ (B,), see `rates`. Returns `Bound`, nats.
  """
  k_t, k_0, k_eps = jax.random.split(key, 3)
  eps_0, eps = (jax.random.normal(k, x.shape, x.dtype) for k in (k_0, k_eps))
  t = times(k_t, len(x))
  return at(eps_fn, x, cond, gamma_fn, t, eps_0, eps, num_steps, level_values(levels), weight)


def at(
  eps_fn: EpsFn,
  x: jax.Array,
  cond: Cond,
  gamma_fn: GammaFn,
  t: jax.Array,
  eps_0: jax.Array,
  eps: jax.Array,
  num_steps: int | None,
  levels: jax.Array,
  weight: Weight | None = None,
) -> Bound:
  """`vlb` without its randomness: t ∈ [0, 1), (B,); eps_0, the noise of z_0, and eps: (B, …)."""
  gamma, rate = rates(gamma_fn, t, num_steps, weight)
  gamma_0, gamma_1 = (gamma_fn(jnp.full_like(t, end)) for end in (0, 1))
  return Bound(
    prior(x, gamma_1),
    reconstruction(x, eps_0, gamma_0, levels),
    diffusion_loss(eps_fn, x, cond, eps, gamma, rate),
  )


def prior(x: jax.Array, gamma_1: jax.Array) -> jax.Array:
  """KL(q(z_1|x) ‖ N(0, I)) = ½ Σ (α_1² x² + σ_1² − log σ_1² − 1), (B,). x: (B, …); gamma_1: (B,).

  VDM's −log p(x) has it, though at γ_1 = 5 it is .0034 nats a dimension.
  """
  gamma_1 = diffusion.over_batch(gamma_1, x)
  alpha2 = jax.nn.sigmoid(-gamma_1)
  return 0.5 * _sum(alpha2 * (jnp.square(x) - 1) - jax.nn.log_sigmoid(gamma_1))


def reconstruction(
  x: jax.Array, eps_0: jax.Array, gamma_0: jax.Array, levels: jax.Array
) -> jax.Array:
  """−log p(x|z_0), z_0 = α_0 x + σ_0 eps_0, of the decoder of section 3.3, nats, (B,).

  p(x|z_0) ∝ q(z_0|x) over the values that a pixel may have, levels (K,), each pixel by itself. x:
  (B, …), of these values; eps_0: (B, …); gamma_0: (B,).
  """
  # With d = (x − level)/e^{γ_0/2}, log q(z_0|level) − log q(z_0|x) = −d (ε + d/2): exactly 0 at x
  # itself, where the squares of z_0/α_0 − level have lost their digits.
  noise = jnp.exp(0.5 * diffusion.over_batch(gamma_0, x))[..., None]
  d = (x[..., None] - levels) / noise
  return _sum(jax.nn.logsumexp(-d * (eps_0[..., None] + 0.5 * d), axis=-1))


def rates(
  gamma_fn: GammaFn, t: jax.Array, num_steps: int | None, weight: Weight | None = None
) -> tuple[jax.Array, jax.Array]:
  """γ of the time that t ∈ [0, 1) falls into, and what ½‖ε − ε̂‖² is multiplied by there: (B,) each.

  In continuous time (num_steps None) the time is t and the factor γ'(t), equation 17; of T steps it
  is the end i/T of t's interval, and T (e^{γ(i/T) − γ((i−1)/T)} − 1), equations 13 and 14. With
  weight, (λ) → (B,), that too: the weighted loss of section 5.1 and appendix K.
  """
  if num_steps is None:
    gamma, rate = jax.jvp(gamma_fn, (t,), (jnp.ones_like(t),))
  else:
    i = jnp.clip(jnp.floor(t * num_steps), 0, num_steps - 1)
    gamma = gamma_fn((i + 1) / num_steps)
    rate = num_steps * jnp.expm1(gamma - gamma_fn(i / num_steps))
  return gamma, rate if weight is None else rate * weight(-gamma)


def diffusion_loss(
  eps_fn: EpsFn, x: jax.Array, cond: Cond, eps: jax.Array, gamma: jax.Array, rate: jax.Array
) -> jax.Array:
  """½ rate ‖ε − ε̂(z_γ)‖², (B,): its mean over t and ε is L_T or L_∞. See `rates`."""
  z = diffusion.diffuse(x, eps, -gamma)
  return 0.5 * rate * _sum(jnp.square(eps_fn(z, -gamma, cond) - eps))


def times(key: jax.Array, n: int) -> jax.Array:
  """Times of a batch, t_i = (u + i/n) mod 1 with one u ~ U[0, 1): each is uniform, and together
  they cover [0, 1) evenly, so that their mean varies less. Appendix I.1. Shape (n,).
  """
  return jnp.mod(jax.random.uniform(key) + jnp.arange(n) / n, 1)


def algorithm_1_weight(
  lam: jax.Array, lambda_min: float = -20.0, lambda_max: float = 20.0
) -> jax.Array:
  """w(λ) whose weighted L_∞, a sum, has the mean ‖ε − ε̂‖² of Algorithm 1, a sum too. Shape of lam.

  Algorithm 1 draws λ from p(λ) = sech(λ/2)/(4a), a of `diffusion.log_snr`, and ½ ∫ w ‖ε − ε̂‖² dλ
  is the weighted loss: so w = 2 p. The bound itself has w = 1.
  """
  b = math.atan(math.exp(-lambda_max / 2))
  a = math.atan(math.exp(-lambda_min / 2)) - b
  return 1 / (2 * a * jnp.cosh(0.5 * lam))


def level_values(levels: int | jax.Array) -> jax.Array:
  """The values that a pixel may have, (K,): of a number K those of data here, 2k/(K − 1) − 1."""
  return jnp.linspace(-1, 1, levels) if isinstance(levels, int) else jnp.asarray(levels)


def shrink(num_levels: int) -> float:
  """What data here, in [−1, 1] with its ends, is multiplied by to be VDM's 2(k + ½)/K − 1."""
  return (num_levels - 1) / num_levels


def bits_per_dim(nats: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Nats of samples of this shape as bits per dimension. Shape of nats."""
  return nats / (math.prod(shape) * math.log(2))


def _sum(values: jax.Array) -> jax.Array:
  """Over all dimensions of each sample: (B, …) → (B,)."""
  return jnp.sum(values, axis=tuple(range(1, values.ndim)))
