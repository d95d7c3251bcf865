"""Pairs: two predictions of one z, the second one to be moved away from, in one network call."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.equations import conditioning, diffusion
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.diffusion import Prediction
from cfg_jax.equations.guidance import rules
from cfg_jax.equations.samplers.loop import Memory

EpsFn = Callable[[jax.Array, jax.Array, Cond], jax.Array]
LogProb = Callable[[jax.Array, jax.Array, Any], jax.Array]
Pair = Callable[..., tuple[Prediction, Prediction]]


class Shared(NamedTuple):
  """An `EpsFn` in two parts, of which the first is without the condition: both passes share it."""

  trunk: Callable[[jax.Array, jax.Array], Any]  # (z, lam) → features, a tree of arrays (N, …)
  head: Callable[[Any, Cond], jax.Array]  # (features, cond) → ε

  def __call__(self, z: jax.Array, lam: jax.Array, cond: Cond) -> jax.Array:
    """ε as any `EpsFn` says it."""
    return self.head(self.trunk(z, lam), cond)


def null(eps_fn: EpsFn, cond: Cond) -> Pair:
  """ε(z, c) and ε(z, ∅), of one conditional model. Section 3.

  eps_fn: (z (N, …), lam (N,), cond) → (N, …), called with N = 2B samples, or `Shared`, whose trunk
  is called with B. Returns pair(z, lam, alone) → (towards, away) for z (B, …) and lam (B,); where
  `alone`, a bool that may be traced, the ∅ half is not computed, and away is towards. Every array
  of cond is of B samples, else pair raises AssertionError.
  """
  return contrast(eps_fn, cond, conditioning.null(cond))


def contrast(eps_fn: EpsFn, cond: Cond, against: Cond) -> Pair:
  """ε(z, c) and ε(z, c'), of one conditional model: away from other conditions, c', say a class.

  against: as cond, one for each sample; a sample whose c' is c is not guided. Others, and what is
  returned, as for `null`. Classifier-free guidance then tilts p(x|c) by (p(x|c)/p(x|c'))^w.
  """

  def conditional(z, lam):
    eps = eps_fn(z, lam, cond)
    return eps, eps

  def both(z, lam):
    # Each sample's two passes lie side by side, [z₁ z₁ z₂ z₂ …] with [c₁ ∅ c₂ ∅ …]: under a batch
    # sharded over devices no sample has to move, as it would for [z; z].
    sides = jax.tree.map(
      lambda a, b: jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:]), cond, against
    )
    shared = isinstance(eps_fn, Shared)
    features = eps_fn.trunk(z, lam) if shared else (z, lam)
    features = jax.tree.map(lambda a: jnp.repeat(a, 2, axis=0), features)
    eps = eps_fn.head(features, sides) if shared else eps_fn(*features, sides)
    return eps[0::2], eps[1::2]

  def pair(z, lam, alone=False):
    chex.assert_equal_shape_prefix([z, lam, *jax.tree.leaves(cond)], 1)
    if isinstance(alone, jax.core.Tracer):
      sides = jax.lax.cond(alone, conditional, both, z, lam)
    else:
      sides = (conditional if alone else both)(z, lam)
    return _predictions(z, lam, *sides)

  return pair


def classes(eps_fn: EpsFn, cond: Cond, num_classes: int) -> Pair:
  """ε(z, c) and Σ_k p(k|z) ε(z, k), the unconditional one from all C classes: ∅ is never asked.

  The classes are equally likely. cond: of class ids (B,). Returns pair(z, lam, alone, log_p) →
  (towards, away, *each), with log_p (B, C) of p(k|z) but for a constant, and each of the C
  predictions: `guide` has log_p from how likely the path is under each of them, with a solver of
  `samplers.TELLING`. One network call of B C samples; where alone, as for `null`, of B.
  """

  def conditional(z, lam):
    return jnp.repeat(eps_fn(z, lam, cond)[:, None], num_classes, axis=1)

  def all_classes(z, lam):
    of_each = conditioning.given(jnp.tile(jnp.arange(num_classes), len(z)))
    eps = eps_fn(jnp.repeat(z, num_classes, axis=0), jnp.repeat(lam, num_classes), of_each)
    return eps.reshape(len(z), num_classes, *z.shape[1:])

  def pair(z, lam, alone, log_p):
    if isinstance(alone, jax.core.Tracer):
      each = jax.lax.cond(alone, conditional, all_classes, z, lam)
    else:
      each = (conditional if alone else all_classes)(z, lam)
    towards = jax.vmap(lambda eps, c: eps[c])(each, cond.value)
    away = jax.vmap(lambda p, eps: jnp.tensordot(p, eps, 1))(jax.nn.softmax(log_p), each)
    return _predictions(z, lam, towards, away, *jnp.unstack(each, axis=1))

  pair.classes = num_classes
  return pair


def autoguidance(eps_fn: EpsFn, cond: Cond, weak_fn: EpsFn) -> Pair:
  """ε(z, c) and ε_weak(z, c), of a worse network: earlier in training, or smaller.

  Guidance then moves away from its mistakes, not from other classes. Karras et al. 2024
  (2406.02507). weak_fn: as eps_fn. Where alone, weak_fn is not called.
  """

  def pair(z, lam, alone=False):
    eps = eps_fn(z, lam, cond)
    away = _unless(alone, eps, lambda: weak_fn(z, lam, cond))
    return _predictions(z, lam, eps, away)

  return pair


def classifier(eps_fn: EpsFn, cond: Cond, log_prob: LogProb) -> Pair:
  """ε(z, c) and ε(z, c) + σ_λ ∇_z log p(c|z), of a model and a classifier of noisy images.

  Then (1 + w) towards − w away is ε(z, c) − w σ_λ ∇_z log p(c|z): classifier guidance of scale w
  (Dhariwal & Nichol 2021, Algorithm 2), and every rule works on it. log_prob: (z (B, …), lam (B,),
  cond.value) → log p(c|z_λ), (B,), each of its own z alone. Where cond is ∅ there is nothing to
  move towards. Others, and what is returned, as for `null`.
  """

  def pair(z, lam, alone=False):
    eps = eps_fn(z, lam, cond)

    def away():
      return eps + class_gradient(log_prob, z, lam, cond)

    return _predictions(z, lam, eps, _unless(alone, eps, away))

  return pair


def classifier_unconditional(eps_fn: EpsFn, cond: Cond, log_prob: LogProb) -> Pair:
  """ε(z) − σ_λ ∇_z log p(c|z) and ε(z): by Bayes' rule the first one is ε(z, c).

  So w is that of a conditional model, and the classifier's scale w + 1; w = −1 is the unconditional
  model (Ho & Salimans, Section 3.1). Arguments as for `classifier`; both sides take the classifier.
  """

  def pair(z, lam, alone=False):
    del alone  # the unguided side, w = 0, needs the gradient too
    eps = eps_fn(z, lam, conditioning.null(cond))
    return _predictions(z, lam, eps - class_gradient(log_prob, z, lam, cond), eps)

  return pair


def class_gradient(log_prob: LogProb, z: jax.Array, lam: jax.Array, cond: Cond) -> jax.Array:
  """σ_λ ∇_z log p(c|z_λ) of each sample by itself, 0 where cond is ∅: (B, …). See `classifier`."""

  def total(z):  # each term knows its own z alone, so this is every sample's own gradient
    return jnp.sum(jnp.where(cond.given, log_prob(z, lam, cond.value), 0))

  _, sigma = diffusion.alpha_sigma(diffusion.over_batch(lam, z))
  return sigma * jax.grad(total)(z)


def _unless(alone, eps, away):
  """Away(), or eps where `alone`: then away is not computed."""
  if isinstance(alone, jax.core.Tracer):
    return jax.lax.cond(alone, lambda: eps, away)
  return eps if alone else away()


def _predictions(z, lam, *sides):
  """What a model that says ε, of each side, says of z."""
  return tuple(Prediction(diffusion.predict_x(z, eps, lam), eps) for eps in sides)


PAIRS: dict[str, Callable[..., Pair]] = {
  'null': null,
  'contrast': contrast,
  'classes': classes,
  'autoguidance': autoguidance,
  'classifier': classifier,
  'classifier_unconditional': classifier_unconditional,
}
CLASSIFIERS = ('classifier', 'classifier_unconditional')  # those that take a log_prob
SHARING = ('null', 'contrast')  # those whose passes share the trunk of a `Shared`
GUIDED = (*CLASSIFIERS, 'autoguidance')  # those that ask another network


def calls(pair: str, alone: bool, num_classes: int = 0) -> tuple[int, int]:
  """What an image costs at a step: network calls, and gradients of log_prob.

  alone: no second prediction is needed, see `rules.alone`. A weaker network counts as the network;
  num_classes: of the pair `classes`.
  """
  if pair == 'classes':
    return (1 if alone else num_classes), 0
  if pair not in CLASSIFIERS:
    return (1 if alone else 2), 0
  return 1, 0 if alone and pair == 'classifier' else 1


def calls_along(
  pair: str,
  rule: str,
  knobs: Mapping[str, Any],
  lam: np.ndarray,
  both: bool = False,
  num_classes: int = 0,
) -> tuple[int, int]:
  """`calls` of an image, added up over the λ of its sampler's calls, see `samplers.visited`.

  pair, rule: by name; knobs: the rule's, one number each; both: whether two predictions are always
  made, as for particles; num_classes: see `calls`. `adaptive` counts as if it never agreed.
  """
  alone = False if both else rules.alone(rules.RULES[rule], lam, np.zeros((len(lam), 1)), knobs)
  if pair == 'classes':
    alone = rules.unguided(knobs, rules.RULES[rule])
  of_steps = [calls(pair, bool(x), num_classes) for x in np.broadcast_to(alone, lam.shape)]
  return tuple(map(sum, zip(*of_steps)))


def guide(pair: Pair, rule: Callable, **knobs: Any) -> Callable:
  """A pair times a rule: the model (z, lam, memory) → (Prediction, memory) that samplers take.

  pair: of `PAIRS`; rule: of `rules.RULES`; knobs: the rule's, scalars or (B,), traced or not. Where
  no sample needs the second prediction it is not computed: if w is traced, or the rule guides at
  some λ alone, that choice is made while the program runs, so that one compiled program serves
  every w and interval.
  """
  if any(isinstance(x, jax.core.Tracer) for x in knobs.values()):
    never = jnp.all(rules.unguided(knobs, rule))
  else:
    known = {name: np.asarray(x) for name, x in knobs.items()}
    never = bool(np.all(rules.unguided(known, rule)))
  looks_back, classes = rule in rules.LOOKS_BACK, getattr(pair, 'classes', 0)

  def model(z: jax.Array, lam: jax.Array, memory: Memory) -> tuple[Prediction, Memory]:
    alone = never
    if rule in rules.ALONE and never is not True and not classes:  # which must hear of every step
      alone = jnp.all(rules.alone(rule, lam, memory.rule, knobs))
    told = (memory.told[:, 2:],) if classes else ()
    sides = towards, away, *_ = pair(z, lam, alone, *told)
    own = memory.rule
    if looks_back:
      own = own, memory.told[:, 0] - memory.told[:, 1]
    prediction, own = rule(towards, away, z, lam, own, **knobs)
    if looks_back or classes:
      prediction = prediction._replace(sides=tuple(side.x for side in sides))
    return prediction, memory._replace(rule=own)

  if looks_back or classes:
    at_first = rules.LOOKS_BACK.get(rule, jnp.zeros_like)
    model.memory = lambda z: (at_first(z), jnp.zeros((len(z), 2 + classes), z.dtype))
  return model
