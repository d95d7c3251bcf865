"""ADM's classifier of noisy images, log p_θ(c|z_λ), in Flax NNX (Dhariwal & Nichol 2021).

The way down and the middle of the U-Net, with its own blocks, and a head; no class goes in. All of
ADM's have 128 channels, attention at 32, 16 and 8 pixels, heads of 64 channels, 32 groups, no
dropout, and the head `attention`. From its Table 12, parameters counted:

                 64×64           128×128            256×256
  channel_mults  (1, 2, 3, 4)    (1, 1, 2, 3, 4)    (1, 1, 2, 2, 4, 4)
  num_blocks     4               2                  2
  λ, its grid    adm_cosine      adm_linear         adm_linear
  parameters     65 438 568      42 568 040         54 096 360
"""

import dataclasses
import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

from cfg_jax.core.config import Context, Problems
from cfg_jax.data import registry
from cfg_jax.nets import cpu, pure, unet
from cfg_jax.nets.blocks import Attention, GroupNorm, ResBlock, Stage, split_keys, way_down
from cfg_jax.nets.embed import embed_lambda


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """What fixes a network; fields as those of `unet.UNetConfig`, and `pool`, one of `HEADS`."""

  image_shape: tuple[int, int, int]
  num_classes: int
  channels: int
  channel_mults: tuple[int, ...]
  num_blocks: int
  attention_resolutions: tuple[int, ...]
  head_channels: int | None
  num_heads: int | None
  dropout: float
  norm_groups: int
  dtype: str
  remat: bool
  lambda_embedding: str = 'arctan'
  pool: str = 'attention'

  @property
  def last(self) -> tuple[int, int]:
    """(pixels, channels) of what the head sees."""
    widths = self.channel_mults
    return (
      (self.image_shape[0] >> (len(widths) - 1)) * (self.image_shape[1] >> (len(widths) - 1)),
      self.channels * widths[-1],
    )


class Encoder(nnx.Module):
  """Logits of p_θ(c|z_λ), and the features that they are a linear function of."""

  def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
    """Builds the network with random parameters; under `nnx.eval_shape`, with none at all."""
    self.config = config
    c_emb = 4 * config.channels
    self.lambda_in = nnx.Linear(config.channels, c_emb, rngs=rngs)
    self.lambda_out = nnx.Linear(c_emb, c_emb, rngs=rngs)
    self.conv_in, down, after = way_down(config, rngs)
    c = after[-1]
    block = lambda: ResBlock(c, c, c_emb, config, rngs)  # noqa: E731
    self.down = nnx.List(down)
    self.middle = Stage(block(), Attention(c, config, rngs), block())
    self.head = HEADS[config.pool](config, [*after, c], rngs)

  def __call__(
    self, z: jax.Array, lam: jax.Array, keys: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """(logits (B, num_classes), features (B, D)) of z (B, H, W, C) and lam (B,), both float32.

    keys: (B,), for dropout; None in inference.
    """
    config = self.config
    chex.assert_shape(z, (lam.shape[0], *config.image_shape))
    run = lambda stage, *args: (jax.checkpoint(stage) if config.remat else stage)(*args)  # noqa: E731
    stages = [*self.down, self.middle]
    emb = self.lambda_in(embed_lambda(lam, config.channels, config.lambda_embedding))
    emb = self.lambda_out(nnx.silu(emb))
    found = [self.conv_in(z.astype(config.dtype))]
    for stage, k in zip(stages, split_keys(keys, len(stages))):
      found.append(run(stage, found[-1], emb, k))
    return self.head(found)


class AttentionHead(nnx.Module):
  """Attention of the image's mean over all positions and itself: CLIP's pool, ADM's default."""

  def __init__(self, config, widths, rngs):
    """Builds the head for the last of widths."""
    pixels, c = config.last
    self.num_heads = config.num_heads or c // config.head_channels
    self.norm = GroupNorm(c, config.norm_groups)
    noise = jax.random.normal(rngs.params(), (pixels + 1, c))
    self.positions = nnx.Param(noise / c**0.5)
    self.qkv = nnx.Linear(c, 3 * c, rngs=rngs)
    self.proj = nnx.Linear(c, config.num_classes, rngs=rngs)

  def __call__(self, found: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Of every stage's result, the last one first in order: (logits, features)."""
    x = nnx.silu(self.norm(found[-1].astype(jnp.float32)))
    b, _, _, c = x.shape
    tokens = x.reshape(b, -1, c)
    tokens = jnp.concatenate([tokens.mean(1, keepdims=True), tokens], axis=1) + self.positions
    q, k, v = (
      y.reshape(b, -1, self.num_heads, c // self.num_heads)
      for y in jnp.split(self.qkv(tokens), 3, axis=-1)
    )
    features = cpu.attend(q[:, :1], k, v).reshape(b, c).astype(jnp.float32)  # of the mean alone
    return self.proj(features), features


class AdaptiveHead(nnx.Module):
  """The mean over all positions. The last layer begins at zero, as ADM's."""

  def __init__(self, config, widths, rngs):
    """Builds the head for the last of widths."""
    c = config.last[1]
    self.norm = GroupNorm(c, config.norm_groups)
    zeros = nnx.initializers.zeros
    self.proj = nnx.Linear(c, config.num_classes, kernel_init=zeros, rngs=rngs)

  def __call__(self, found: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """(logits, features) of every stage's result."""
    features = nnx.silu(self.norm(found[-1].astype(jnp.float32))).mean((1, 2))
    return self.proj(features), features


class SpatialHead(nnx.Module):
  """The means of every stage's result over its positions, and a hidden layer of 2048."""

  def __init__(self, config, widths, rngs):
    """Builds the head for all widths."""
    self.hidden = nnx.Linear(sum(widths), 2048, rngs=rngs)
    self.proj = nnx.Linear(2048, config.num_classes, rngs=rngs)

  def __call__(self, found: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """(logits, features) of every stage's result."""
    means = [x.astype(jnp.float32).mean((1, 2)) for x in found]
    features = nnx.relu(self.hidden(jnp.concatenate(means, axis=-1)))
    return self.proj(features), features


HEADS: dict[str, Callable] = {
  'attention': AttentionHead,
  'adaptive': AdaptiveHead,
  'spatial': SpatialHead,
}


# Of a config: see `pure`. apply_fn gives (params, *inputs of `Encoder.__call__`) → its result.
num_parameters = functools.partial(pure.num_parameters, Encoder)
create_params = functools.partial(pure.create_params, Encoder)
apply_fn = functools.partial(pure.apply_fn, Encoder)


def of(config: ml_collections.ConfigDict) -> EncoderConfig:
  """The network of a run's config; UserError where its data set is not known."""
  dataset = registry.of(config.data)
  return EncoderConfig(
    image_shape=dataset.image_shape, num_classes=dataset.num_classes, **config.model
  )


def problems(model: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `model`: (field, remedy)."""
  common = {k: v for k, v in model.items() if k != 'pool'}
  yield from unet.problems(ml_collections.ConfigDict(common), context)
  if 'fourier' in model:
    yield 'fourier', 'is no field of a classifier: leave it out'
  if model.get('pool', 'attention') not in HEADS:
    yield 'pool', f'is none of {", ".join(HEADS)}'
