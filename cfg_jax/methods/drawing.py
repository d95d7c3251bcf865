"""A method's samples, as training and `generate` draw them: jitted, placed, in grey levels."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cfg_jax.core import config as config_lib
from cfg_jax.core import fields, sharding
from cfg_jax.core.errors import UserError
from cfg_jax.core.fields import Field
from cfg_jax.data import kinds, registry
from cfg_jax.equations import conditioning, samplers
from cfg_jax.equations.guidance import pairs, rules
from cfg_jax.equations.samplers.loop import Part
from cfg_jax.methods import guides, learns_grid, make
from cfg_jax.methods.method import Request

config_lib.FIT['sample.sampler'] = samplers.fitted  # --set sample.sampler.name=ddim
# A field that configs may leave out: how x becomes uint8. ADM truncates.
config_lib.OPTIONAL['sample.quantisation'] = 'round'

FIELDS = {
  'num_samples': Field(int, 1, 10**7),  # their indices are in memory, and in names of eight digits
  'batch_size': Field(int, 1, 2**24),
  'labels': Field(str),
  'ema': Field(bool),
  'seed': config_lib.SEED,
  'quantisation': Field(str, may_lack=True),
}


def quantisation_of(sample: ml_collections.ConfigDict) -> str:
  """How pixels become bytes: 'round', or 'truncate' as guided-diffusion's."""
  return sample.get('quantisation', 'round')


def make_sampler(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, beside: bool = False
) -> Callable:
  """The jitted sampler (params, indices, value, knobs, seed) → uint8 (B, H, W, C), all traced.

  params: of the players, see `TrainState`; indices: int32 (B,), which samples; value: their
  conditions; knobs: the guidance rule's, float32 (B,) each; seed: uint32, of their noise. One
  compiled program serves every w and seed; where all w are 0 it skips the ∅ half. beside: return
  (images, what is recorded beside them) instead, see `Drawn`.
  """
  method, quantisation = make(config, mesh), quantisation_of(config.sample)

  def draw(params, indices, value, knobs, seed):
    keys = sample_keys(seed, indices)
    drawn = method.draw(params, Request(keys, conditioning.given(value), knobs))
    images = to_uint8(drawn.x, quantisation)
    return (images, drawn.beside) if beside else images

  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  return jax.jit(
    draw, in_shardings=(everywhere, split, split, split, everywhere), out_shardings=split
  )


def make_shared(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> tuple[Callable, Callable]:
  """`make_sampler` in two programs: of the `shared_steps`, once for all w, and of the others.

  The first is (params, indices, value, seed) → the carry of those samples; the second takes, after
  the arguments of `make_sampler`, that carry and the rows (B,) of it that it begins with. It
  returns what is recorded beside the images too.
  """
  method, quantisation = make(config, mesh), quantisation_of(config.sample)
  steps = shared_steps(config)

  def request(indices, value, knobs, seed, part):
    return Request(sample_keys(seed, indices), conditioning.given(value), knobs, part)

  def begin(params, indices, value, seed):
    unguided = request(indices, value, {'w': 0.0}, seed, Part(until=steps))
    return method.draw(params, unguided).x

  def go_on(params, indices, value, knobs, seed, carry, rows):
    part = Part(steps, carry=jax.tree.map(lambda a: a[rows], carry))
    drawn = method.draw(params, request(indices, value, knobs, seed, part))
    return to_uint8(drawn.x, quantisation), drawn.beside

  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  of_begin = everywhere, split, split, everywhere
  of_rest = everywhere, split, split, split, everywhere, split, split
  return tuple(
    jax.jit(f, in_shardings=placed, out_shardings=split)
    for f, placed in ((begin, of_begin), (go_on, of_rest))
  )


def shared_steps(config: ml_collections.ConfigDict) -> int:
  """How many of the sampler's first steps are the same for all w: those that the rule leaves alone.

  0 for one w, and where the config does not tell.
  """
  section, guidance = config.sample.sampler, config.sample.guidance
  rule = rules.RULES[guidance.rule]
  if (
    len(guidance.w) < 2
    or rule not in rules.BY_LAMBDA
    or guidance.pair == 'classes'  # which looks back at all steps
    or pairs.calls(guidance.pair, alone=True) != (1, 0)
    or section.name in samplers.PARTICLES
    or section.grid == 'learned'
  ):
    return 0
  lam, guided = samplers.visited(section, **config.diffusion), rules.knobs_of(guidance) | {'w': 1.0}
  # λ as the program rounds it may be on the other side of an end.
  alone = np.all([rules.alone(rule, lam + d, None, guided) for d in (-1e-3, 1e-3)], axis=0)
  of_steps = alone[:-1].reshape(section.num_steps - 1, -1).all(axis=1)
  return int(np.argmin(np.append(of_steps, False)))


def knobs(config: ml_collections.ConfigDict, w: np.ndarray) -> dict[str, np.ndarray]:
  """The guidance rule's knobs of samples whose w (B,) is given, the others as config says."""
  values = rules.knobs_of(config.sample.guidance) | {'w': w}
  return {name: np.broadcast_to(np.float32(x), w.shape) for name, x in values.items()}


def sample_keys(seed: int | jax.Array, indices: jax.Array) -> jax.Array:
  """The key of each sample, a function of seed and its index alone. (B,) → (B,)."""
  return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(indices)


def to_uint8(x: jax.Array, quantisation: str = 'round') -> jax.Array:
  """[−1, 1] to 0..255, to nearest or, as ADM does, truncated (which moves Inception's features by
  1e-3).
  """
  levels = jnp.clip((x + 1) * 127.5, 0, 255)
  return (jnp.round(levels) if quantisation == 'round' else levels).astype(jnp.uint8)


def can_draw(config: ml_collections.ConfigDict, w: float) -> bool:
  """Whether the network has been trained on all that its pair asks of it at this w: c, or ∅."""
  pair, p = config.sample.guidance.pair, config.method.p_uncond
  with_c = pair not in ('null', 'classifier_unconditional') or pair == 'null' and w != -1
  with_null = pair == 'classifier_unconditional' or pair == 'null' and w != 0
  return not (with_c and p == 1 or with_null and p == 0)


def check_guidance(config: ml_collections.ConfigDict, w: Sequence[float]) -> None:
  """Raises UserError where one of w needs a class, or ∅, and the network has never seen it."""
  if all(can_draw(config, x) for x in w):
    return
  p, pair = config.method.p_uncond, config.sample.guidance.pair
  if p == 1:
    unconditional = '--w -1' if pair == 'null' else '--set sample.guidance.pair=null --w -1'
    raise UserError(
      f'sample.guidance.pair={pair} with w={tuple(w)} asks for classes, which this network has '
      f'never seen (method.p_uncond=1): use {unconditional}, or --set sample.guidance.pair='
      'classifier_unconditional with a guide.'
    )
  remedy = 'use --w 0' if pair == 'null' else 'use the pair classifier, whose w is one less'
  raise UserError(
    f'sample.guidance.w={tuple(w)} guides with ∅, which this network has never seen '
    f'(method.p_uncond=0): {remedy}.'
  )


def problems(sample: ml_collections.ConfigDict, context: config_lib.Context) -> config_lib.Problems:
  """What is wrong with the config's section `sample`: (field, remedy)."""
  own = {name: sample[name] for name in sample if name not in ('sampler', 'guidance')}
  wrong = list(fields.problems(own, FIELDS))
  yield from wrong
  for field in ('sampler', 'guidance'):
    if not isinstance(sample.get(field), ml_collections.ConfigDict):
      yield field, 'must be a section; see configs/digits.py'
      return
  if 'batch_size' not in dict(wrong):
    for remedy in fields.splits(sample.batch_size, context.num_devices):
      yield 'batch_size', remedy
  if quantisation_of(sample) not in ('round', 'truncate'):
    yield 'quantisation', "must be 'round' or 'truncate'"
  ends, learns = context.config.get('diffusion'), learns_grid(context.config)
  for field, remedy in samplers.problems(sample.sampler, ends, learns):
    yield f'sampler.{field}', remedy
  if sample.guidance.get('pair') not in pairs.PAIRS:
    yield 'guidance.pair', f'is none of {", ".join(pairs.PAIRS)}'
  else:
    for field, remedy in guides.problems(context.config):
      yield f'guidance.{field}', remedy
  for field, remedy in rules.problems(sample.guidance):
    yield f'guidance.{field}', remedy
  if (sample.guidance.get('rule') == 'mean_shift') != (
    sample.sampler.get('name') == 'ddpm_shifted'
  ):
    yield 'guidance.rule', "and the solver: 'mean_shift' and 'ddpm_shifted' go together, or neither"
  guidance, told = sample.guidance, []
  if rules.RULES.get(guidance.get('rule')) in rules.LOOKS_BACK:
    told.append(f'the rule {guidance.rule}')
  if guidance.get('pair') == 'classes':
    told.append('the pair classes')
  if told and sample.sampler.get('name') not in samplers.TELLING:
    what, solvers = ' and '.join(told), ', '.join(samplers.TELLING)
    yield 'sampler.name', f'does not tell {what} how likely its steps are: use {solvers}'
  if sample.sampler.get('name') in samplers.PARTICLES:
    if sample.guidance.get('rule') not in ('classifier_free', 'mean_shift'):
      yield 'guidance.rule', "is weighted by no particles: with 'smc', use 'classifier_free'"
    k, at_once = sample.sampler.get('particles'), sample.get('batch_size')
    if type(k) is type(at_once) is int and k > at_once:
      remedy = f'must be at most sample.batch_size={at_once}: those of an image are drawn at once'
      yield 'sampler.particles', remedy
  dataset = registry.find(context.config.data)
  if (
    dataset is not None
    and 'labels' not in dict(wrong)
    and (remedy := kinds.problem(sample.labels, dataset.num_classes))
  ):
    yield 'labels', remedy
