"""Rules that keep a part of the direction from `away` to `towards`, or the size of what it makes.

Each is two network calls a step. Inner products, norms and deviations are of one sample.
"""

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance.classifier_free import guided_eps


def rescale(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
  phi: float | jax.Array = 0.7,
) -> tuple[Prediction, jax.Array]:
  """φ (std ε(z, c)/std ε̃) ε̃ + (1 − φ) ε̃. Lin et al. 2024 (2305.08891), section 3.4.

  φ ∈ [0, 1]: 1 gives ε̃ the deviation of ε(z, c), 0 is classifier-free. Theirs is of the network's
  output, v for them; here that is ε, and the two are not the same rule.
  """
  eps = guided_eps(towards.eps, away.eps, w)
  ratio = _std(towards.eps) / jnp.maximum(_std(eps), jnp.finfo(eps.dtype).tiny)
  phi = diffusion.over_batch(phi, z)
  eps = phi * ratio * eps + (1 - phi) * eps
  return Prediction(diffusion.predict_x(z, eps, lam), eps), memory


def apg(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
  eta: float | jax.Array = 0.0,
  radius: float | jax.Array = 0.0,
  momentum: float | jax.Array = -0.5,
) -> tuple[Prediction, jax.Array]:
  """x̃ = x_c + w (g⊥ + η g∥): less of what saturates. Sadat et al. 2024 (2410.02416), Algorithm 1.

  g = (x_c − x_u) + β g_before, shortened to `radius` where it is longer, and split into parts along
  x_c and across it. η ∈ [0, 1]; radius ≥ 0, where 0 does not shorten (theirs, 2.5 and 5, are of
  latents); momentum β in (−1, 1): −0.5 is theirs for DiT. η = 1, radius = 0, β = 0 is
  classifier-free guidance. A solver that calls the model twice a step moves g twice.
  """
  g, memory = _projected(towards.x, away.x, memory, towards.x, eta, radius, momentum)
  return _moved(towards, diffusion.over_batch(w, z) * g, lam), memory


def apg_comfyui(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
  eta: float | jax.Array = 0.0,
  radius: float | jax.Array = 0.0,
  momentum: float | jax.Array = -0.5,
) -> tuple[Prediction, jax.Array]:
  """x̃ = x_c + (1 + w) (g⊥ + η g∥), as ComfyUI's nodes_apg.py has it: w = 0 guides already.

  Else as `apg`, which is the paper's; with η = 1 it is classifier-free guidance by w + 1.
  """
  g, memory = _projected(towards.x, away.x, memory, towards.x, eta, radius, momentum)
  return _moved(towards, diffusion.over_batch(1 + w, z) * g, lam), memory


def apg_diffusers(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
  eta: float | jax.Array = 0.0,
  radius: float | jax.Array = 0.0,
  momentum: float | jax.Array = -0.5,
) -> tuple[Prediction, jax.Array]:
  """ε̃ = ε(z) + (1 + w) (g⊥ + η g∥), all of it of ε, as diffusers' guider: the network's output.

  Else as `apg`, which is the paper's; with η = 1 it is classifier-free guidance, and with η = 0 and
  w = 0 not the conditional model.
  """
  g, memory = _projected(towards.eps, away.eps, memory, towards.eps, eta, radius, momentum)
  eps = away.eps + diffusion.over_batch(1 + w, z) * g
  return Prediction(diffusion.predict_x(z, eps, lam), eps), memory


def cfg_zero(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
) -> tuple[Prediction, jax.Array]:
  """ṽ = (1 + w) v_c − w k v_u with k = ⟨v_c, v_u⟩/‖v_u‖². Fan et al. 2025 (2503.18886), CFG-Zero*.

  v = ε − x, a flow's velocity. Where the two are collinear there is no guidance. Their first steps
  of velocity zero are left out: they are for flows that start at pure noise.
  """
  toward, from_ = (p.eps - p.x for p in (towards, away))
  k = _dot(toward, from_) / jnp.maximum(_dot(from_, from_), jnp.finfo(z.dtype).tiny)
  v = guided_eps(toward, k * from_, w)
  alpha, sigma = diffusion.alpha_sigma(diffusion.over_batch(lam, z))
  eps = (z + alpha * v) / (alpha + sigma)
  return Prediction(eps - v, eps), memory


def tcfg(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
) -> tuple[Prediction, jax.Array]:
  """(1 + w) ε(z, c) − w P ε(z), P on the direction that both share. Kwon et al. 2025 (2503.18137).

  That is the first right singular vector of the two rows ε(z), ε(z, c), in closed form from their
  2×2 Gram matrix. Where they are collinear it is classifier-free guidance.
  """
  c, u = towards.eps, away.eps
  uu, uc, cc = _dot(u, u), _dot(u, c), _dot(c, c)
  angle = 0.5 * jnp.arctan2(2 * uc, uu - cc)
  common = jnp.cos(angle) * u + jnp.sin(angle) * c
  of_u = _dot(u, common) / jnp.maximum(_dot(common, common), jnp.finfo(z.dtype).tiny)
  eps = guided_eps(c, of_u * common, w)
  return Prediction(diffusion.predict_x(z, eps, lam), eps), memory


def _projected(towards, away, memory, along, eta, radius, momentum):
  """(g⊥ + η g∥, g before it was shortened), of g = towards − away + β memory. See `apg`."""
  over = diffusion.over_batch
  average = towards - away + over(momentum, towards) * memory
  norm, radius = jnp.sqrt(_dot(average, average)), over(radius, towards)
  tiny = jnp.finfo(towards.dtype).tiny
  g = average * jnp.where(radius > 0, jnp.minimum(1, radius / jnp.maximum(norm, tiny)), 1)
  parallel = _dot(g, along) / jnp.maximum(_dot(along, along), tiny) * along
  return g - (1 - over(eta, towards)) * parallel, average


def _moved(towards, by, lam):
  """The prediction whose x is moved: ε follows, so that z = α x + σ ε holds."""
  lam = jnp.broadcast_to(lam, by.shape[:1])
  of_x = jnp.exp(0.5 * diffusion.over_batch(lam, by))  # α/σ
  return Prediction(towards.x + by, towards.eps - of_x * by)


def _dot(a, b):
  return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)


def _std(x):
  return jnp.std(x, axis=tuple(range(1, x.ndim)), keepdims=True)
