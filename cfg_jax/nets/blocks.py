"""The parts of ADM's networks: group norm, residual block, self-attention (Dhariwal & Nichol 2021).

config is a `unet.UNetConfig`: blocks read its dtype, dropout, norm_groups, head_channels and
num_heads.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from cfg_jax.nets import cpu

CONVOLUTION = 'convolution'  # how remat's policies call what one gives


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
    size = channels // self.num_groups
    x = cpu.whole_gradient(x)
    x32 = x.astype(jnp.float32)
    # E[x²] − E[x]² loses all digits where the mean is far from 0. Neither variance nor result
    # depends on what is subtracted first: the mean of the first row costs least.
    first_row = x32[:, 0].reshape(batch, -1, self.num_groups, size)
    near_mean = jax.lax.stop_gradient(cpu.over_groups(first_row.mean((1, 3)), size))
    x32 = x32 - near_mean[:, None, None]
    moments = jnp.stack([x32.mean((1, 2)), jnp.square(x32).mean((1, 2))])  # (2, B, C)
    grouped = cpu.mean_of_groups(moments, size)  # (2, B, G)
    mean, mean_square = cpu.over_groups(grouped, size)
    variance = jnp.maximum(mean_square - jnp.square(mean), 0.0)
    a = jax.lax.rsqrt(variance + 1e-5) * self.scale
    b = self.bias - a * mean
    a, b = a * (1 + scale), b * (1 + scale) + shift
    return (x32 * a[:, None, None] + b[:, None, None]).astype(x.dtype)


class ResBlock(nnx.Module):
  """x + conv(adaptive norm(conv(norm(x)))), at half, equal or double resolution. ADM, appendix A.

  resample: 'down' (2×2 mean), 'up' (nearest) or None; it acts on both branches, BigGAN's way.
  """

  def __init__(self, c_in, c_out, c_emb, config, rngs, resample=None):
    """Builds the block c_in → c_out; c_emb is the width of the embedding."""
    conv = convolution(config, rngs)
    self.resample = {None: lambda x: x, 'down': _downsample, 'up': cpu.upsample}[resample]
    self.norm_in = GroupNorm(c_in, config.norm_groups)
    self.up = resample == 'up'
    self.conv_in = conv(c_in, c_out, 3, cpu.convolve_upsampled if self.up else cpu.convolve)
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


class Attention(nnx.Module):
  """x + proj(self-attention(norm(x))) over all positions. ADM, appendix A."""

  def __init__(self, c, config, rngs):
    """Builds the block for c channels."""
    self.num_heads = config.num_heads or c // config.head_channels
    self.norm = GroupNorm(c, config.norm_groups)
    self.qkv = nnx.Linear(c, 3 * c, dtype=config.dtype, rngs=rngs)
    self.proj = nnx.Linear(c, c, dtype=config.dtype, kernel_init=nnx.initializers.zeros, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """(B, H, W, c) → (B, H, W, c)."""
    b, h, w, c = x.shape
    rows = self.norm(x).reshape(-1, c)  # on several axes a CPU takes a product's gradient slowly
    qkv = jnp.split(self.qkv(rows), 3, axis=-1)
    out = cpu.attend(*(y.reshape(b, h * w, self.num_heads, c // self.num_heads) for y in qkv))
    return x + self.proj(out.reshape(-1, c)).reshape(x.shape)


class Stage(nnx.Module):
  """A residual block, perhaps attention, perhaps a second block: what lies between two skips."""

  def __init__(self, first: ResBlock, attention: Attention | None = None, last=None):
    """Keeps the parts that are not None."""
    self.first, self.attention, self.last = first, attention, last

  def __call__(self, x: jax.Array, emb: jax.Array, keys: jax.Array | None) -> jax.Array:
    """x (B, H, W, c), emb (B, c_emb), keys (B,) → (B, H', W', c')."""
    keys_first, keys_last = split_keys(keys, 2)
    x = self.first(x, emb, keys_first)
    if self.attention is not None:
      x = self.attention(x)
    return x if self.last is None else self.last(x, emb, keys_last)


def way_down(config, rngs, features: int = 1) -> tuple[nnx.Conv, list[Stage], list[int]]:
  """The first convolution, the stages from the image to its smallest, and the width after each.

  At every level config.num_blocks residual blocks, each with attention where the level has it, and
  but for the last level a block that halves. The U-Net meets the widths on its way up. features:
  how many channels come in for each of the image's.
  """
  c_emb, widths = 4 * config.channels, [config.channels * mult for mult in config.channel_mults]
  c, r = widths[0], config.image_shape[0]
  conv_in = convolution(config, rngs)(features * config.image_shape[2], c, 3)
  stages, after = [], [c]
  for level, width in enumerate(widths):
    for _ in range(config.num_blocks):
      block = ResBlock(c, width, c_emb, config, rngs)
      attends = r in config.attention_resolutions
      stages.append(Stage(block, Attention(width, config, rngs) if attends else None))
      c = width
      after.append(c)
    if level < len(widths) - 1:
      stages.append(Stage(ResBlock(c, c, c_emb, config, rngs, 'down')))
      r //= 2
      after.append(c)
  return conv_in, stages, after


def split_keys(keys: jax.Array | None, n: int) -> list[jax.Array] | list[None]:
  """n new keys of each: n arrays (B,); n times None, of None."""
  return [None] * n if keys is None else list(jax.vmap(lambda k: jax.random.split(k, n))(keys).T)


def convolution(config, rngs) -> Callable[..., nnx.Conv]:
  """(c_in, c_out, size) → a convolution in config.dtype, computed by `operation`."""

  def conv(c_in, c_out, size, operation=cpu.convolve, **kwargs):
    named = lambda *args, **given: checkpoint_name(operation(*args, **given), CONVOLUTION)  # noqa: E731
    kwargs |= {'dtype': config.dtype, 'conv_general_dilated': named, 'rngs': rngs}
    return nnx.Conv(c_in, c_out, (size, size), **kwargs)

  return conv


def _downsample(x: jax.Array) -> jax.Array:
  """2×2 mean: (B, H, W, C) → (B, H/2, W/2, C)."""
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
