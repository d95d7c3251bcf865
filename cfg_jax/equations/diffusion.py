"""Section 2 of the paper: the log-SNR λ, α_λ, σ_λ, the forward process and the reverse transition.

Everything is a function of λ = log(α_λ²/σ_λ²), and is stable in float32 on all of λ ∈ [−20, 20]: no
1 − sigmoid(λ), no 1 − e^δ, no variance outside log space. `lam` is (B,) where it meets (B, …).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Prediction(NamedTuple):
  """What a model says of z_λ, each (B, …): z = α_λ x + σ_λ ε, unless a guidance rule says else.

  kind: (B,) or one for all. Where a rule changes its formula on the way, as at the ends of an
  interval, it tells here which it used: a solver of order 2 does not combine two kinds. smooth:
  an x without the rule, whose change along λ stands in for that of x where two kinds meet. sides:
  other x, under which a solver is to tell how likely its step was: see `loop.Memory`.
  """

  x: jax.Array
  eps: jax.Array
  kind: jax.Array | bool = False
  smooth: jax.Array | None = None
  sides: tuple[jax.Array, ...] = ()


def log_snr(u: jax.Array, lambda_min: float = -20.0, lambda_max: float = 20.0) -> jax.Array:
  """λ = −2 log tan(a u + b), so that u ~ U[0, 1] gives the paper's p(λ). Section 2.

  u = 0 gives λ_max, u = 1 gives λ_min; b = arctan(e^{−λ_max/2}), a = arctan(e^{−λ_min/2}) − b.
  Shape follows u.
  """
  u = jnp.asarray(u)
  # θ = a u + b is small near λ_max, its complement π/2 − θ = a (1 − u) + b' near λ_min.
  b = jnp.arctan(jnp.exp(-0.5 * jnp.asarray(lambda_max, u.dtype)))
  b_co = jnp.arctan(jnp.exp(0.5 * jnp.asarray(lambda_min, u.dtype)))
  a = 0.5 * jnp.pi - b - b_co
  theta, theta_co = a * u + b, a * (1 - u) + b_co
  # −2 log tan θ = 2 asinh(cos 2θ / sin 2θ), where cos 2θ = sin(π/2 − 2θ) vanishes with λ, and
  # sin 2θ = sin 2(π/2 − θ): each sine takes the argument that is known to full precision.
  cos_2theta = jnp.sin(a * (1 - 2 * u) + (b_co - b))
  return 2 * jnp.arcsinh(cos_2theta / jnp.sin(2 * jnp.minimum(theta, theta_co)))


def alpha_sigma(lam: jax.Array) -> tuple[jax.Array, jax.Array]:
  """α_λ, σ_λ of q(z_λ|x) = N(α_λ x, σ_λ² I): α² = sigmoid(λ), σ² = sigmoid(−λ). Section 2.

  Shapes follow lam.
  """
  return jnp.sqrt(jax.nn.sigmoid(lam)), jnp.sqrt(jax.nn.sigmoid(-lam))


def diffuse(x: jax.Array, eps: jax.Array, lam: jax.Array) -> jax.Array:
  """z_λ = α_λ x + σ_λ ε, a draw of q(z_λ|x) when ε ~ N(0, I). Section 2.

  x, eps: (B, …); lam: (B,) or a scalar. Returns (B, …).
  """
  alpha, sigma = alpha_sigma(over_batch(lam, x))
  return alpha * x + sigma * eps


def predict_x(z: jax.Array, eps: jax.Array, lam: jax.Array) -> jax.Array:
  """x = (z_λ − σ_λ ε)/α_λ: the image that noise ε leaves in z_λ. Section 2.

  z, eps: (B, …); lam: (B,) or a scalar. Returns (B, …). At λ = −20 an error of ε weighs
  σ/α = e^{10} ≈ 22 026 times.
  """
  alpha, sigma = alpha_sigma(over_batch(lam, z))
  return (z - sigma * eps) / alpha


def predict_eps(z: jax.Array, x: jax.Array, lam: jax.Array) -> jax.Array:
  """ε = (z_λ − α_λ x)/σ_λ: the noise that image x leaves in z_λ. Section 2.

  z, x: (B, …); lam: (B,) or a scalar. Returns (B, …).
  """
  alpha, sigma = alpha_sigma(over_batch(lam, z))
  return (z - alpha * x) / sigma


def reverse(
  z: jax.Array, x: jax.Array, lam: jax.Array, lam_next: jax.Array, v: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mean and variance of p(z_λ'|z_λ) = N(μ̃(z_λ, x), (σ̃²_{λ'|λ})^{1−v} (σ²_{λ|λ'})^v I). Section 2.

  z, x: (B, …), x the (predicted) image; lam < lam_next: (B,) or scalars, from noise towards data;
  v ∈ [0, 1]: 0 is Bayes' rule for q(z_λ'|z_λ, x), 1 the variance of the forward transition.
  Returns the mean (B, …) and the variance, which broadcasts against it.
  """
  lam, lam_next = over_batch(lam, z), over_batch(lam_next, z)
  log_alpha, log_alpha_next = (0.5 * jax.nn.log_sigmoid(l) for l in (lam, lam_next))
  log_sigma2, log_sigma2_next = (jax.nn.log_sigmoid(-l) for l in (lam, lam_next))
  one_minus_r = -jnp.expm1(lam - lam_next)  # 1 − e^{λ−λ'}
  mean_z = jnp.exp(lam - lam_next + log_alpha_next - log_alpha)  # e^{λ−λ'} α_λ'/α_λ
  mean_x = one_minus_r * jnp.exp(log_alpha_next)  # (1 − e^{λ−λ'}) α_λ'
  # σ̃²_{λ'|λ} = (1 − e^{λ−λ'}) σ_λ'² and σ²_{λ|λ'} = (1 − e^{λ−λ'}) σ_λ² share their first factor.
  variance = one_minus_r * jnp.exp((1 - v) * log_sigma2_next + v * log_sigma2)
  return mean_z * z + mean_x * x, variance


def log_ratio(shift: jax.Array, noise: jax.Array, variance: jax.Array) -> jax.Array:
  """How much likelier z' = μ + noise is by N(μ + shift, variance I) than by N(μ, variance I).

  The log of the ratio of two densities, as of two `reverse` of one z_λ. shift, noise: (B, …).
  Returns (B,).
  """
  return jnp.sum((noise - 0.5 * shift) * shift / variance, tuple(range(1, noise.ndim)))


def over_batch(lam: float | jax.Array, x: jax.Array) -> jax.Array:
  """Lam (or w), (B,) or scalar, with axes of one behind, to broadcast against x, (B, …)."""
  lam = jnp.asarray(lam)
  if lam.ndim:
    chex.assert_shape(lam, (x.shape[0],))
    lam = lam.reshape(lam.shape + (1,) * (x.ndim - 1))
  return lam
