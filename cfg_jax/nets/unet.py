"""The ADM U-Net of Dhariwal & Nichol (2021), ε_θ(z_λ, λ, c), in Flax NNX.

Section 4 of the paper: "the same as" ADM, but conditioned on a continuous λ. One class serves the
digits and the paper; the numbers differ:

                            ADM-64            ADM-128
  channels                  192               256
  channel_mults             (1, 2, 3, 4)      (1, 1, 2, 3, 4)
  num_blocks                3                 2
  attention_resolutions     (32, 16, 8)       (32, 16, 8)
  head_channels, num_heads  64, None          None, 4
  dropout                   0.1               0.0
  parameters                295 900 035       421 523 715     (3 outputs, 1000 classes and ∅)

Common to both: BigGAN up and down blocks, adaptive group norm (scale and shift, 32 groups), outputs
of residual branches and of the network initialised at zero. Not in the paper: the embedding of λ,
see `embedding`. Initialisation is Flax's (LeCun normal).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

from cfg_jax.core import config as config_lib
from cfg_jax.core import fields
from cfg_jax.core.config import Context, Problems
from cfg_jax.core.fields import BELOW_1, Field
from cfg_jax.data import registry
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.guidance.pairs import EpsFn, Shared
from cfg_jax.nets import pure
from cfg_jax.nets.blocks import (
  CONVOLUTION,
  Attention,
  GroupNorm,
  ResBlock,
  Stage,
  convolution,
  split_keys,
  way_down,
)
from cfg_jax.nets.embed import EMBEDDINGS, EXPONENTS, embed_lambda, fourier_features

# model.remat_keeps: what is kept of the blocks that model.remat recomputes in the backward pass.
KEEPS = {
  'nothing': jax.checkpoint_policies.nothing_saveable,
  # all but attention's own: what is computed again is cheap, norms and activations for the most
  'products': jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_saveable,
    jax.checkpoint_policies.save_only_these_names(CONVOLUTION),
  ),
}

config_lib.OPTIONAL['model.remat_keeps'] = 'nothing'  # a field that configs may leave out


@dataclasses.dataclass(frozen=True)
class UNetConfig:
  """What fixes a network; see the table above. Resolutions are image heights in pixels."""

  image_shape: tuple[int, int, int]  # H, W, C of x and ε
  num_classes: int  # without ∅, which is index num_classes
  channels: int
  channel_mults: tuple[int, ...]
  num_blocks: int
  attention_resolutions: tuple[int, ...]
  head_channels: int | None
  num_heads: int | None  # exactly one of head_channels and num_heads is given
  dropout: float
  norm_groups: int
  dtype: str  # of convolutions and attention; parameters, norms, softmax, embeddings are float32
  remat: bool  # recompute each block in the backward pass instead of storing its insides
  remat_keeps: str = 'nothing'  # of a block that is recomputed: see KEEPS
  lambda_embedding: str = 'arctan'  # or, for ADM's published networks, another of `embedding`
  fourier: tuple[int, ...] = ()  # n of VDM's Fourier features of z, (7, 8) there; () has none
  late_condition: int = 0  # how many of the stages come before the class, see `num_stages`


class Features(NamedTuple):
  """What the stages so far have made of z and λ."""

  h: jax.Array  # (B, H', W', c)
  skips: tuple[jax.Array, ...]  # for the way up
  emb: jax.Array  # (B, c_emb), of λ alone


class UNet(nnx.Module):
  """ε_θ(z_λ, λ, c)."""

  def __init__(self, config: UNetConfig, rngs: nnx.Rngs):
    """Builds the network with random parameters; under `nnx.eval_shape`, with none at all."""
    self.config = config
    conv, c = convolution(config, rngs), config.channels
    c_emb, c_image = 4 * c, config.image_shape[2]
    block = lambda c_in, c_out, resample=None: ResBlock(  # noqa: E731
      c_in, c_out, c_emb, config, rngs, resample
    )
    attend = lambda c, r: (  # noqa: E731
      Attention(c, config, rngs) if r in config.attention_resolutions else None
    )

    self.lambda_in = nnx.Linear(c, c_emb, rngs=rngs)
    self.lambda_out = nnx.Linear(c_emb, c_emb, rngs=rngs)
    self.class_emb = nnx.Embed(config.num_classes + 1, c_emb, rngs=rngs)

    self.conv_in, down, skips = way_down(config, rngs, 1 + 2 * len(config.fourier))
    c = skips[-1]
    widths = [config.channels * mult for mult in config.channel_mults]
    r = config.image_shape[0] >> (len(widths) - 1)
    self.middle = Stage(block(c, c), Attention(c, config, rngs), block(c, c))

    up = []
    for level, width in reversed(list(enumerate(widths))):
      for i in range(config.num_blocks + 1):
        ends_level = level > 0 and i == config.num_blocks
        up.append(
          Stage(
            block(c + skips.pop(), width),
            attend(width, r),
            block(width, width, 'up') if ends_level else None,
          )
        )
        c = width
      r *= 2
    self.down, self.up = nnx.List(down), nnx.List(up)
    self.norm_out = GroupNorm(c, config.norm_groups)
    self.conv_out = conv(c, c_image, 3, kernel_init=nnx.initializers.zeros)

  def __call__(
    self, z: jax.Array, lam: jax.Array, cond: Cond, keys: jax.Array | None = None
  ) -> jax.Array:
    """ε of z (B, H, W, C), lam (B,) and classes, int (B,) in 0..num_classes − 1, or ∅.

    keys: (B,), for dropout, so that what a sample loses does not depend on the others; None in
    inference. Returns (B, H, W, C) in float32.
    """
    chex.assert_equal_shape([lam, cond.value, cond.given])
    of_stages = split_keys(keys, sum(num_stages(self.config)))
    return self.head(self.trunk(z, lam, of_stages), cond, of_stages)

  def trunk(self, z: jax.Array, lam: jax.Array, keys: Sequence | None = None) -> Features:
    """What the stages before the class make of z and λ: both passes of guidance share it.

    keys: for dropout, (B,) for each stage of the network.
    """
    config = self.config
    chex.assert_shape(z, (lam.shape[0], *config.image_shape))
    emb = self.lambda_in(embed_lambda(lam, config.channels, config.lambda_embedding))
    emb = self.lambda_out(nnx.silu(emb))
    h = self.conv_in(fourier_features(z, config.fourier).astype(config.dtype))
    return self._through(slice(config.late_condition), Features(h, (h,), emb), emb, keys)

  def head(self, features: Features, cond: Cond, keys: Sequence | None = None) -> jax.Array:
    """ε of what `trunk` has made, with classes or ∅, by the other stages."""
    config = self.config
    row = jnp.where(cond.given, cond.value, config.num_classes)  # the last row is ∅'s
    emb = features.emb + self.class_emb(row)
    h = self._through(slice(config.late_condition, None), features, emb, keys).h
    return self.conv_out(nnx.silu(self.norm_out(h))).astype(jnp.float32)

  def _through(self, which: slice, features: Features, emb, keys) -> Features:
    """Some of the stages, with one embedding for all of them."""
    # With remat only a stage's inputs are kept for the backward pass, and what `remat_keeps` says.
    again = functools.partial(jax.checkpoint, policy=KEEPS[self.config.remat_keeps])
    run = lambda stage, *args: (again(stage) if self.config.remat else stage)(*args)  # noqa: E731
    stages, h, skips = [*self.down, self.middle, *self.up], features.h, features.skips
    for i in range(len(stages))[which]:
      if i > len(self.down):  # on the way up
        h, skips = jnp.concatenate([h, skips[-1]], axis=-1), skips[:-1]
      h = run(stages[i], h, emb, keys[i] if keys else None)
      if i < len(self.down):
        skips = (*skips, h)
    return features._replace(h=h, skips=skips)


# Of a config: see `pure`. apply_fn gives (params, *inputs of `UNet.__call__`) → its result.
num_parameters = functools.partial(pure.num_parameters, UNet)
create_params = functools.partial(pure.create_params, UNet)
apply_fn = functools.partial(pure.apply_fn, UNet)


def eps_fn(config: UNetConfig, params: dict) -> EpsFn:
  """ε_θ of parameters, without dropout; in two parts where the class enters late."""
  if not config.late_condition:
    return functools.partial(apply_fn(config), params)
  return Shared(*(functools.partial(apply_fn(config, part), params) for part in ('trunk', 'head')))


def num_stages(model: UNetConfig | ml_collections.ConfigDict) -> tuple[int, int, int]:
  """How many stages a network has on its way down, in the middle, and on its way up."""
  of_each_way = len(model.channel_mults) * (model.num_blocks + 1)
  return of_each_way - 1, 1, of_each_way


def of(config: ml_collections.ConfigDict) -> UNetConfig:
  """The network of a run's config; UserError where its data set is not known."""
  dataset = registry.of(config.data)
  return UNetConfig(
    image_shape=dataset.image_shape, num_classes=dataset.num_classes, **config.model
  )


FIELDS = {
  'channels': Field(int, 2, 2**16),
  'channel_mults': Field(int, 1, 64, 'must have one multiplier a level, 1 to 64', many=True),
  'num_blocks': Field(int, 1, 64),
  'attention_resolutions': Field(int, 1, 2**16, many=True),
  'head_channels': Field(int, 1, 2**16, optional=True),
  'num_heads': Field(int, 1, 2**16, optional=True),
  'dropout': Field(float, 0, BELOW_1, 'must be in [0, 1)'),
  'norm_groups': Field(int, 1, 2**16),
  'dtype': Field(str),
  'remat': Field(bool),
  'remat_keeps': Field(str, may_lack=True),
  'lambda_embedding': Field(str, may_lack=True),
  'fourier': EXPONENTS._replace(may_lack=True),
  'late_condition': Field(int, 0, may_lack=True),
}
config_lib.OPTIONAL['model.late_condition'] = 0  # the class enters everywhere


def problems(model: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `model`: (field, remedy)."""
  wrong = list(fields.problems(model, FIELDS))
  yield from wrong
  if wrong:
    return
  dataset = registry.find(context.config.data)
  if dataset is not None:  # where it is, that is told by its owner
    size = dataset.image_shape[0]
    resolutions = [size // 2**level for level in range(len(model.channel_mults))]
    if size % 2 ** (len(model.channel_mults) - 1):
      halvings = len(model.channel_mults) - 1
      yield 'channel_mults', f'halves {size} pixels {halvings} times; use fewer levels'
    if never := [r for r in model.attention_resolutions if r not in resolutions]:
      yield (
        'attention_resolutions',
        f'has {never}, which never occur: the levels are {resolutions}',
      )
  widths = [model.channels * mult for mult in model.channel_mults]
  if not widths:
    yield 'channel_mults', 'must have one multiplier a level'
  if model.dtype not in ('float32', 'bfloat16'):
    yield 'dtype', "must be 'float32' or 'bfloat16'"
  if bad := [width for width in widths if width % model.norm_groups]:
    yield (
      'channels',
      f'× channel_mults gives {bad}, not divisible by model.norm_groups={model.norm_groups}',
    )
  if model.channels % 2:
    yield 'channels', 'must be even: the embedding of λ has sines and cosines'
  if model.get('remat_keeps', 'nothing') not in KEEPS:
    yield 'remat_keeps', f'must be one of {", ".join(KEEPS)}'
  if model.get('lambda_embedding', 'arctan') not in EMBEDDINGS:
    yield 'lambda_embedding', f'must be one of {", ".join(EMBEDDINGS)}'
  heads, head_channels = model.num_heads, model.head_channels
  if model.get('late_condition', 0) >= sum(stages := num_stages(model)):
    yield (
      'late_condition',
      f'leaves the class none of the {sum(stages)} stages: use 0 to {sum(stages) - 1}; '
      '{} are on the way down, {} in the middle, {} on the way up'.format(*stages),
    )
  if (heads is None) == (head_channels is None):
    yield 'num_heads', f'and model.head_channels={head_channels}: give exactly one'
  elif bad := [width for width in widths if width % (heads or head_channels)]:
    yield 'num_heads' if heads else 'head_channels', f'does not divide the widths {bad}'
