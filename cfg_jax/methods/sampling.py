"""x of a network that says ε, as `config.sample` says: pair, rule and solver, or particles."""

import jax
import jax.numpy as jnp
import ml_collections

from cfg_jax.equations import guidance, samplers
from cfg_jax.equations.guidance import smc
from cfg_jax.equations.guidance.pairs import PAIRS, EpsFn
from cfg_jax.equations.guidance.rules import RULES
from cfg_jax.methods import guides
from cfg_jax.methods.method import Drawn, Request


def draw(
  config: ml_collections.ConfigDict,
  eps_fn: EpsFn,
  params: dict,
  request: Request,
  shape: tuple[int, ...],
  lam: jax.Array,
) -> Drawn:
  """The samples of a request along lam (T,). params: of the players, a guide's among them.

  Of particles, one for each sample, chosen by weight; beside it `effective` (B, T − 1), the
  effective sample size after each step, and `log_ratio` (B, T − 1), log p(c|z)/p(c) by its path.
  """
  section, rule = config.sample.sampler, config.sample.guidance
  settings = samplers.settings_of(section)

  def pair(cond):
    return PAIRS[rule.pair](eps_fn, cond, *guides.given(config, params, cond))

  if section.name not in samplers.PARTICLES:
    model = guidance.guide(pair(request.cond), RULES[rule.rule], **request.knobs)
    x = samplers.sample_model(model, request.keys, shape, lam, part=request.part, **settings)
    return Drawn(x, {})
  of_each = jax.tree.map(lambda a: jnp.repeat(a, section.particles, axis=0), request.cond)
  found = smc.draw(pair(of_each), request.keys, shape, lam, **request.knobs, **settings)
  which = smc.picked(request.keys, found)
  x, log_ratio = (smc.take(a, which)[:, 0] for a in (found.x, found.log_ratio))
  return Drawn(x, {'effective': found.effective, 'log_ratio': log_ratio})
