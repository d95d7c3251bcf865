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
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

from cfg_jax.core.config import Context, Problems
from cfg_jax.data import registry
from cfg_jax.equations.conditioning import Cond
from cfg_jax.nets.cpu import convolve, convolve_upsampled, upsample
from cfg_jax.nets.embed import EMBEDDINGS, embed_lambda


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
  lambda_embedding: str = 'arctan'  # or, for ADM's published networks, another of `embedding`


@jax.custom_vjp
def _whole_gradient(x: jax.Array) -> jax.Array:
  """x; the gradient by x is computed once, where XLA would repeat it in each of its consumers.

  Those are a convolution's two products, its bias and the residual sum: without this a block's
  backward pass grows with the number of blocks behind it, a tenth of the time on a CPU.
  """
  return x


_whole_gradient.defvjp(
  lambda x: (x, None), lambda _, gradient: (jax.lax.optimization_barrier(gradient),)
)


class GroupNorm(nnx.Module):
  """Group norm, then (1 + scale) y + shift: ADM's adaptive group norm when both are given.

  In float32 whatever x is. All of it is one multiply-add a channel, a x + b, whose a and b (B, C)
  come from the channels' first two moments: a third of the time of `nnx.GroupNorm` on a CPU.
  """

  def __init__(self, channels: int, num_groups: int):
    """Learned scale 1 and bias 0, for channels in num_groups groups."""
    self.num_groups = num_groups
    self.scale = nnx.Param(jnp.ones(channels))
    self.bias = nnx.Param(jnp.zeros(channels))

  def __call__(self, x: jax.Array, scale=0.0, shift=0.0) -> jax.Array:
    """x (B, H, W, C); scale, shift: (B, C) or scalars. Returns x's shape and dtype."""
    batch, _, _, channels = x.shape
    x = _whole_gradient(x)
    x32 = x.astype(jnp.float32)
    # E[x²] − E[x]² loses all digits where the mean is far from 0. Neither variance nor result
    # depends on what is subtracted first: the mean of the first row costs least.
    first_row = x32[:, 0].reshape(batch, -1, self.num_groups, channels // self.num_groups)
    near_mean = jax.lax.stop_gradient(self._over_channels(first_row.mean((1, 3)), channels))
    x32 = x32 - near_mean[:, None, None]
    moments = jnp.stack([x32.mean((1, 2)), jnp.square(x32).mean((1, 2))])  # (2, B, C)
    grouped = moments.reshape(2, batch, self.num_groups, -1).mean(-1)  # (2, B, G)
    mean, mean_square = self._over_channels(grouped, channels)
    variance = jnp.maximum(mean_square - jnp.square(mean), 0.0)
    a = jax.lax.rsqrt(variance + 1e-5) * self.scale
    b = self.bias - a * mean
    a, b = a * (1 + scale), b * (1 + scale) + shift
    return (x32 * a[:, None, None] + b[:, None, None]).astype(x.dtype)

  def _over_channels(self, grouped: jax.Array, channels: int) -> jax.Array:
    """A group's number for each of its channels: (…, G) → (…, C)."""
    return jnp.repeat(grouped, channels // self.num_groups, axis=-1)


class ResBlock(nnx.Module):
  """x + conv(adaptive norm(conv(norm(x)))), at half, equal or double resolution. ADM, appendix A.

  resample: 'down' (2×2 mean), 'up' (nearest) or None; it acts on both branches, BigGAN's way.
  """

  def __init__(self, c_in, c_out, c_emb, config: UNetConfig, rngs, resample=None):
    """Builds the block c_in → c_out; c_emb is the width of the embedding."""
    conv = _conv(config, rngs)
    self.resample = {None: lambda x: x, 'down': _downsample, 'up': upsample}[resample]
    self.norm_in = GroupNorm(c_in, config.norm_groups)
    self.up = resample == 'up'
    self.conv_in = conv(c_in, c_out, 3, convolve_upsampled if self.up else convolve)
    self.emb = nnx.Linear(c_emb, 2 * c_out, rngs=rngs)
    self.norm_out = GroupNorm(c_out, config.norm_groups)
    self.conv_out = conv(c_out, c_out, 3, kernel_init=nnx.initializers.zeros)
    self.skip = conv(c_in, c_out, 1) if c_in != c_out else None
    self.dropout = config.dropout

  def __call__(self, x: jax.Array, emb: jax.Array, keys: jax.Array | None) -> jax.Array:
    """x (B, H, W, c_in), emb (B, c_emb) → (B, H', W', c_out); dropout only with keys (B,)."""
    h = nnx.silu(self.norm_in(x))
    h = self.conv_in(h if self.up else self.resample(h))
    scale, shift = jnp.split(self.emb(nnx.silu(emb)), 2, axis=-1)
    h = nnx.silu(self.norm_out(h, scale, shift))
    if keys is not None and self.dropout > 0:
      keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.dropout, h.shape[1:]))(keys)
      h = jnp.where(keep, h / (1 - self.dropout), 0).astype(h.dtype)
    x = self.resample(x)
    return (self.skip(x) if self.skip else x) + self.conv_out(h)


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """softmax(q kᵀ/√d) v of each head: (B, T, N, d) of all three, and of the result.

  Softmax in float32. Heads come first and the division last: on a CPU twice as fast, at T = 1024,
  as `jax.nn.dot_product_attention`, which passes over (B, N, T, T) more often.
  """
  q, k, v = (y.swapaxes(1, 2) for y in (q * q.shape[-1] ** -0.5, k, v))  # (B, N, T, d)
  logits = jnp.einsum('bntd,bnsd->bnts', q, k, preferred_element_type=jnp.float32)
  exp = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
  out = jnp.einsum('bnts,bnsd->bntd', exp.astype(v.dtype), v, preferred_element_type=jnp.float32)
  return (out / exp.sum(-1, keepdims=True)).astype(v.dtype).swapaxes(1, 2)


class Attention(nnx.Module):
  """x + proj(self-attention(norm(x))) over all positions. ADM, appendix A."""

  def __init__(self, c, config: UNetConfig, rngs):
    """Builds the block for c channels."""
    self.num_heads = config.num_heads or c // config.head_channels
    self.norm = GroupNorm(c, config.norm_groups)
    self.qkv = nnx.Linear(c, 3 * c, dtype=config.dtype, rngs=rngs)
    self.proj = nnx.Linear(c, c, dtype=config.dtype, kernel_init=nnx.initializers.zeros, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """(B, H, W, c) → (B, H, W, c)."""
    b, h, w, c = x.shape
    qkv = jnp.split(self.qkv(self.norm(x)), 3, axis=-1)
    out = attend(*(y.reshape(b, h * w, self.num_heads, c // self.num_heads) for y in qkv))
    return x + self.proj(out.reshape(b, h, w, c))


class UNet(nnx.Module):
  """ε_θ(z_λ, λ, c)."""

  def __init__(self, config: UNetConfig, rngs: nnx.Rngs):
    """Builds the network with random parameters; under `nnx.eval_shape`, with none at all."""
    self.config = config
    conv, c = _conv(config, rngs), config.channels
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

    widths = [c * mult for mult in config.channel_mults]
    c, r = widths[0], config.image_shape[0]
    self.conv_in = conv(c_image, c, 3)
    skips, down, up = [c], [], []  # skips: widths that the way up will meet, last one first
    for level, width in enumerate(widths):
      for _ in range(config.num_blocks):
        down.append(Stage(block(c, width), attend(width, r)))
        c = width
        skips.append(c)
      if level < len(widths) - 1:
        down.append(Stage(block(c, c, 'down')))
        r //= 2
        skips.append(c)

    self.middle = Stage(block(c, c), Attention(c, config, rngs), block(c, c))

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
    config = self.config
    chex.assert_shape(z, (lam.shape[0], *config.image_shape))
    chex.assert_equal_shape([lam, cond.value, cond.given])
    stages = [*self.down, self.middle, *self.up]
    # With remat only a stage's inputs are kept for the backward pass.
    run = lambda stage, *args: (jax.checkpoint(stage) if config.remat else stage)(*args)  # noqa: E731
    keys = iter(_split(keys, len(stages)))

    emb = self.lambda_in(embed_lambda(lam, config.channels, config.lambda_embedding))
    row = jnp.where(cond.given, cond.value, config.num_classes)  # the last row is ∅'s
    emb = self.lambda_out(nnx.silu(emb)) + self.class_emb(row)
    h = self.conv_in(z.astype(config.dtype))
    skips = [h]
    for stage in self.down:
      h = run(stage, h, emb, next(keys))
      skips.append(h)
    h = run(self.middle, h, emb, next(keys))
    for stage in self.up:
      h = run(stage, jnp.concatenate([h, skips.pop()], axis=-1), emb, next(keys))
    return self.conv_out(nnx.silu(self.norm_out(h))).astype(jnp.float32)


class Stage(nnx.Module):
  """A residual block, perhaps attention, perhaps a second block: what lies between two skips."""

  def __init__(self, first: ResBlock, attention: Attention | None = None, last=None):
    """Keeps the parts that are not None."""
    self.first, self.attention, self.last = first, attention, last

  def __call__(self, x: jax.Array, emb: jax.Array, keys: jax.Array | None) -> jax.Array:
    """x (B, H, W, c), emb (B, c_emb), keys (B,) → (B, H', W', c')."""
    keys_first, keys_last = _split(keys, 2)
    x = self.first(x, emb, keys_first)
    if self.attention is not None:
      x = self.attention(x)
    return x if self.last is None else self.last(x, emb, keys_last)


def _split(keys: jax.Array | None, n: int) -> list[jax.Array] | list[None]:
  """n new keys of each: n arrays (B,); n times None, of None."""
  return [None] * n if keys is None else list(jax.vmap(lambda k: jax.random.split(k, n))(keys).T)


def _conv(config: UNetConfig, rngs) -> Callable[..., nnx.Conv]:
  def conv(c_in, c_out, size, convolution=convolve, **kwargs):
    kwargs |= {'dtype': config.dtype, 'conv_general_dilated': convolution, 'rngs': rngs}
    return nnx.Conv(c_in, c_out, (size, size), **kwargs)

  return conv


def _downsample(x: jax.Array) -> jax.Array:
  """2×2 mean: (B, H, W, C) → (B, H/2, W/2, C)."""
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def num_parameters(config: UNetConfig) -> int:
  """The number of parameters, from shapes alone: no memory is touched."""
  abstract = nnx.eval_shape(lambda: UNet(config, nnx.Rngs(0)))
  return sum(p.size for p in jax.tree.leaves(nnx.state(abstract, nnx.Param)))


def create_params(config: UNetConfig, seed: int) -> dict[str, Any]:
  """Parameters from seed, as a plain pytree. Trace under `jax.jit` or `jax.eval_shape`."""
  return nnx.state(UNet(config, nnx.Rngs(seed)), nnx.Param).to_pure_dict()


@functools.cache  # seconds for a large network
def apply_fn(config: UNetConfig) -> Callable:
  """ε_θ as a pure function: (params, z, lam, cond, keys=None) → ε; see `UNet.__call__`."""
  graph, abstract = nnx.split(nnx.eval_shape(lambda: UNet(config, nnx.Rngs(0))))

  def apply(params, z, lam, cond, keys=None):
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)(z, lam, cond, keys)

  return apply


def of(config: ml_collections.ConfigDict) -> UNetConfig:
  """The network of a run's config; UserError where its data set is not known."""
  dataset = registry.of(config.data)
  return UNetConfig(
    image_shape=dataset.image_shape, num_classes=dataset.num_classes, **config.model
  )


def problems(model: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `model`: (field, remedy)."""
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
  if model.num_blocks < 1:
    yield 'num_blocks', 'must be at least 1'
  if not 0 <= model.dropout < 1:
    yield 'dropout', 'must be in [0, 1)'
  if model.dtype not in ('float32', 'bfloat16'):
    yield 'dtype', "must be 'float32' or 'bfloat16'"
  if bad := [width for width in widths if width % model.norm_groups]:
    yield (
      'channels',
      f'× channel_mults gives {bad}, not divisible by model.norm_groups={model.norm_groups}',
    )
  if model.channels % 2:
    yield 'channels', 'must be even: the embedding of λ has sines and cosines'
  if model.get('lambda_embedding', 'arctan') not in EMBEDDINGS:
    yield 'lambda_embedding', f'must be one of {", ".join(EMBEDDINGS)}'
  heads, head_channels = model.num_heads, model.head_channels
  if (heads is None) == (head_channels is None):
    yield 'num_heads', f'and model.head_channels={head_channels}: give exactly one'
  elif bad := [width for width in widths if width % (heads or head_channels)]:
    yield 'num_heads' if heads else 'head_channels', f'does not divide the widths {bad}'
