"""DPM-Solver++: exponential integrators of x̃. Lu et al. 2022, Algorithms 1 and 2, equation 5.

Its λ is log(α/σ), half of this project's log-SNR, so that its step h is (λ' − λ)/2 here.
"""

import jax
import jax.numpy as jnp

from cfg_jax.equations import diffusion
from cfg_jax.equations.samplers.loop import Memory, Model, Noise, Step


def dpmpp(
  model: Model,
  z: jax.Array,
  step: Step,
  noise: Noise,
  memory: Memory,
  *,
  order: int = 2,
  singlestep: bool = False,
  sde: bool = False,
) -> tuple[jax.Array, Memory]:
  """A step of order 1, 2M (order 2), or 2S (order 2 and singlestep), of the ODE or the SDE.

  Order 1 is DDIM with η = 0, and η = 1 for the SDE. 2M extrapolates x̃ to the middle of the step
  from the last two, one call of the model a step, and where they are of two kinds by the change of
  their `smooth` instead, if there is one; it is of order 1 on the first step, and where the step is
  over twice the last one, since few steps are then unstable. (The last call of every sampler is of
  order 1 too: it returns its x̃.) 2S calls the model at the middle instead, two calls a step.
  """
  if order == 2 and singlestep:
    return _two_stages(model, z, step, noise, memory, sde)
  prediction, memory = model(z, step.lam, memory)
  x = prediction.x
  if order == 2:
    last, same = memory.solver, prediction.kind == memory.solver.kind
    smooth = prediction.smooth - last.smooth
    x = x + _trust(step) * jnp.where(diffusion.over_batch(same, x), x - last.x, smooth)
    memory = memory._replace(solver=prediction)
  z = _move(z, x, step.lam, step.lam_next, sde)
  if sde:
    z = z + _spread(step.lam, step.lam_next) * noise(step.t)
  return z, memory


def _two_stages(model, z, step, noise, memory, sde):
  lam, lam_next = step.lam, step.lam_next
  middle = 0.5 * (lam + lam_next)
  first, memory = model(z, lam, memory)
  half_way = _move(z, first.x, lam, middle, sde)
  if not sde:
    second, memory = model(half_way, middle, memory)
    return _move(z, second.x, lam, lam_next, sde), memory
  # The noise of the first half is part of the step's: else its effect on x̃' is of the wrong order.
  xi = _spread(lam, middle) * noise(step.t)
  second, memory = model(half_way + xi, middle, memory)
  xi = _move(xi, 0, middle, lam_next, sde)
  xi += _spread(middle, lam_next) * noise(step.num_steps + step.t)
  return _move(z, second.x, lam, lam_next, sde) + xi, memory


def _move(z, x, lam, lam_next, sde):
  """(σ'/σ) z + α' (1 − e^{−h}) x, or for the SDE's mean (σ'/σ) e^{−h} z + α' (1 − e^{−2h}) x."""
  h = 0.5 * (lam_next - lam)
  log_ratio = 0.5 * (jax.nn.log_sigmoid(-lam_next) - jax.nn.log_sigmoid(-lam))  # log σ'/σ
  alpha, _ = diffusion.alpha_sigma(lam_next)
  of_z, of_x = (log_ratio - h, 2 * h) if sde else (log_ratio, h)
  return jnp.exp(of_z) * z - alpha * jnp.expm1(-of_x) * x


def _spread(lam, lam_next):
  """σ' √(1 − e^{−2h}), of the SDE's noise."""
  return diffusion.alpha_sigma(lam_next)[1] * jnp.sqrt(-jnp.expm1(lam - lam_next))


def _trust(step: Step) -> jax.Array:
  """h/(2 h_last), by which 2M extrapolates, or 0."""
  h, last = step.lam_next - step.lam, step.lam - step.lam_before  # twice DPM-Solver's, both
  near = (step.t > 1) & (h <= 2 * last)
  return jnp.where(near, 0.5 * h / jnp.where(last > 0, last, 1), 0)
