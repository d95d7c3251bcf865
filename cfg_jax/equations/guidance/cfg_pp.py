"""CFG++: guided x̃, unguided noise."""

import jax

from cfg_jax.equations import diffusion
from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance.classifier_free import guided_eps, w_from_scale


def cfg_pp(
  towards: Prediction,
  away: Prediction,
  z: jax.Array,
  lam: jax.Array,
  memory: jax.Array,
  *,
  w: float | jax.Array,
) -> tuple[Prediction, jax.Array]:
  """x̃ of ε(z) + w (ε(z, c) − ε(z)), beside ε(z). Chung et al. 2024 (2406.08070), Algorithm 2.

  Here w is their λ (or γ), in [0, 1], and 0 the unconditional model. It is for `ddim` with η = 0,
  which moves by both x̃ and ε: a step of δ = λ' − λ is classifier-free DDIM's with 1 + w replaced by
  w/(1 − e^{−δ/2}). So it guides the more, the more steps there are. Two network calls a step.
  """
  eps = guided_eps(towards.eps, away.eps, w_from_scale(w))
  return Prediction(diffusion.predict_x(z, eps, lam), away.eps), memory
