"""The network of Kingma et al. 2021 (appendix B), ε_θ(z_λ, λ, c), in Flax NNX: no resampling.

All its residual blocks are at the image's own resolution, because likelihood lies in the finest
detail, and the network also sees Fourier features of z: sin and cos of 2ⁿπz, n = 7 and 8.

                  CIFAR-10, ImageNet 32×32   with augmentation   ImageNet 64×64
  channels        128, 256                   256                 256
  num_blocks      32                         32                  64
  dropout         0.1                        0.05                0.1
  attend_always   no                         yes                 no

Common to all: num_blocks blocks down, two and attention between, num_blocks + 1 up with skips; ε̂ is
the last convolution's output plus z. Blocks and the output begin at zero, so that ε̂ is z at first.
The class, which VDM does not have, is added to the embedding, as in `unet`.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

from cfg_jax.core import fields
from cfg_jax.core.config import Context, Problems
from cfg_jax.core.fields import BELOW_1, Field
from cfg_jax.data import registry
from cfg_jax.equations.conditioning import Cond
from cfg_jax.equations.guidance.pairs import EpsFn
from cfg_jax.nets import pure
from cfg_jax.nets.blocks import Attention, GroupNorm, convolution, split_keys
from cfg_jax.nets.embed import EXPONENTS, fourier_features, sinusoids


@dataclasses.dataclass(frozen=True)
class VDMConfig:
  """What fixes a network; see the table above."""

  image_shape: tuple[int, int, int]  # H, W, C of x and ε
  num_classes: int  # without ∅, which is index num_classes
  lambda_min: float  # those of the config: λ is embedded relative to these, wherever the learned
  lambda_max: float  # schedule's own ends have gone
  channels: int
  num_blocks: int
  attend_always: bool  # attention after every block, not only in the middle
  fourier: tuple[int, ...]  # n of the Fourier features; () has none
  dropout: float
  norm_groups: int
  dtype: str  # of convolutions and attention; parameters, norms, softmax, embeddings are float32
  remat: bool  # recompute each block in the backward pass instead of storing its insides
  num_heads: int = 1
  head_channels: int | None = None


class VDMBlock(nnx.Module):
  """skip(x) + conv(dropout(norm(conv(norm(x)) + projected embedding))), perhaps attention after."""

  def __init__(self, c_in: int, c_out: int, config: VDMConfig, attends: bool, rngs: nnx.Rngs):
    """Builds the block c_in → c_out."""
    conv, zeros = convolution(config, rngs), nnx.initializers.zeros
    self.norm_in = GroupNorm(c_in, config.norm_groups)
    self.conv_in = conv(c_in, c_out, 3)
    width = 4 * config.channels
    self.emb = nnx.Linear(width, c_out, use_bias=False, kernel_init=zeros, rngs=rngs)
    self.norm_out = GroupNorm(c_out, config.norm_groups)
    self.conv_out = conv(c_out, c_out, 3, kernel_init=zeros)
    self.skip = conv(c_in, c_out, 1) if c_in != c_out else None
    self.attention = Attention(c_out, config, rngs) if attends else None
    self.dropout = config.dropout

  def __call__(self, x: jax.Array, emb: jax.Array, keys: jax.Array | None) -> jax.Array:
    """x (B, H, W, c_in), emb (B, 4 channels) → (B, H, W, c_out); dropout only with keys (B,)."""
    h = self.conv_in(nnx.silu(self.norm_in(x)))
    h = nnx.silu(self.norm_out(h + self.emb(emb)[:, None, None].astype(h.dtype)))
    if keys is not None and self.dropout > 0:
      keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.dropout, h.shape[1:]))(keys)
      h = jnp.where(keep, h / (1 - self.dropout), 0).astype(h.dtype)
    x = (self.skip(x) if self.skip else x) + self.conv_out(h)
    return x if self.attention is None else self.attention(x)


class VDM(nnx.Module):
  """ε_θ(z_λ, λ, c)."""

  def __init__(self, config: VDMConfig, rngs: nnx.Rngs):
    """Builds the network with random parameters; under `nnx.eval_shape`, with none at all."""
    self.config = config
    conv, c, c_image = convolution(config, rngs), config.channels, config.image_shape[2]
    block = lambda c_in, attends: VDMBlock(c_in, c, config, attends, rngs)  # noqa: E731
    self.lambda_in = nnx.Linear(c, 4 * c, rngs=rngs)
    self.lambda_out = nnx.Linear(4 * c, 4 * c, rngs=rngs)
    self.class_emb = nnx.Embed(config.num_classes + 1, 4 * c, rngs=rngs)
    self.conv_in = conv(c_image * (1 + 2 * len(config.fourier)), c, 3)
    n, always = config.num_blocks, config.attend_always
    self.down = nnx.List([block(c, always) for _ in range(n)])
    self.middle = nnx.List([block(c, True), block(c, False)])
    self.up = nnx.List([block(2 * c, always) for _ in range(n + 1)])
    self.norm_out = GroupNorm(c, config.norm_groups)
    self.conv_out = conv(c, c_image, 3, kernel_init=nnx.initializers.zeros)

  def __call__(
    self, z: jax.Array, lam: jax.Array, cond: Cond, keys: jax.Array | None = None
  ) -> jax.Array:
    """ε of z (B, H, W, C), lam (B,) and classes or ∅; arguments as for `unet.UNet`."""
    config = self.config
    chex.assert_shape(z, (lam.shape[0], *config.image_shape))
    chex.assert_equal_shape([lam, cond.value, cond.given])
    run = lambda stage, *args: (jax.checkpoint(stage) if config.remat else stage)(*args)  # noqa: E731
    keys = iter(split_keys(keys, len(self.down) + len(self.middle) + len(self.up)))

    t = (config.lambda_max - lam) / (config.lambda_max - config.lambda_min)
    emb = self.lambda_in(sinusoids(1000 * t, config.channels))
    row = jnp.where(cond.given, cond.value, config.num_classes)  # the last row is ∅'s
    emb = nnx.silu(self.lambda_out(nnx.silu(emb)) + self.class_emb(row))
    h = self.conv_in(fourier_features(z, config.fourier).astype(config.dtype))
    skips = [h]
    for block in self.down:
      h = run(block, h, emb, next(keys))
      skips.append(h)
    for block in self.middle:
      h = run(block, h, emb, next(keys))
    for block in self.up:
      h = run(block, jnp.concatenate([h, skips.pop()], axis=-1), emb, next(keys))
    return self.conv_out(nnx.silu(self.norm_out(h))).astype(jnp.float32) + z


# Of a config: see `pure`. apply_fn gives (params, *inputs of `VDM.__call__`) → its result.
num_parameters = functools.partial(pure.num_parameters, VDM)
create_params = functools.partial(pure.create_params, VDM)
apply_fn = functools.partial(pure.apply_fn, VDM)


def eps_fn(config: VDMConfig, params: dict) -> EpsFn:
  """ε_θ of parameters, without dropout."""
  return functools.partial(apply_fn(config), params)


def of(config: ml_collections.ConfigDict) -> VDMConfig:
  """The network of a run's config; UserError where its data set is not known."""
  dataset = registry.of(config.data)
  return VDMConfig(
    image_shape=dataset.image_shape,
    num_classes=dataset.num_classes,
    **config.diffusion,
    **config.model,
  )


FIELDS = {
  'channels': Field(int, 2, 2**16),
  'num_blocks': Field(int, 1, 256),
  'attend_always': Field(bool),
  'fourier': EXPONENTS,
  'dropout': Field(float, 0, BELOW_1, 'must be in [0, 1)'),
  'norm_groups': Field(int, 1, 2**16),
  'dtype': Field(str),
  'remat': Field(bool),
}


def problems(model: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `model`: (field, remedy)."""
  del context
  wrong = list(fields.problems(model, FIELDS))
  yield from wrong
  if wrong:
    return
  if model.dtype not in ('float32', 'bfloat16'):
    yield 'dtype', "must be 'float32' or 'bfloat16'"
  if model.channels % model.norm_groups:
    yield 'channels', f'must be a multiple of model.norm_groups={model.norm_groups}'
  if model.channels % 2:
    yield 'channels', 'must be even: the embedding of λ has sines and cosines'
