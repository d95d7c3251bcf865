"""The ADM U-Net in PyTorch, for tests and benchmarks: what OpenAI's published files hold.

Written from the published description (Dhariwal & Nichol 2021, section 3 and appendix A, and the
BigGAN and adaptive group norm blocks that they take over), with modules so nested that the names
and shapes of the parameters are those of `64x64_diffusion.pt` and `128x128_diffusion.pt`.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from cfg_jax.nets import unet


@dataclasses.dataclass(frozen=True)
class ADM:
  """The numbers of a network; `new_attention_order` is how the 3c outputs of qkv are laid out."""

  image_size: int
  channels: int
  channel_mults: tuple[int, ...]
  num_blocks: int
  attention_resolutions: tuple[int, ...]
  head_channels: int | None
  num_heads: int | None
  new_attention_order: bool
  num_classes: int = 1000
  out_channels: int = 6  # ε and what the variance is interpolated with
  groups: int = 32


ADM_64 = ADM(64, 192, (1, 2, 3, 4), 3, (32, 16, 8), 64, None, new_attention_order=True)
ADM_128 = ADM(128, 256, (1, 1, 2, 3, 4), 2, (32, 16, 8), None, 4, new_attention_order=False)


class ResBlock(nn.Module):
  def __init__(self, adm, c_in, c_out, resample=None):
    super().__init__()
    self.resample = resample or nn.Identity()
    self.in_layers = nn.Sequential(
      nn.GroupNorm(adm.groups, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1)
    )
    self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * adm.channels, 2 * c_out))
    self.out_layers = nn.Sequential(
      nn.GroupNorm(adm.groups, c_out),
      nn.SiLU(),
      nn.Dropout(0.0),
      nn.Conv2d(c_out, c_out, 3, padding=1),
    )
    self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

  def forward(self, x, emb):
    norm_in, silu, conv_in = self.in_layers
    h = conv_in(self.resample(silu(norm_in(x))))
    scale, shift = self.emb_layers(emb)[:, :, None, None].chunk(2, dim=1)
    norm_out, *rest = self.out_layers
    h = norm_out(h) * (1 + scale) + shift
    for layer in rest:
      h = layer(h)
    return self.skip_connection(self.resample(x)) + h


class Attention(nn.Module):
  def __init__(self, adm, c):
    super().__init__()
    self.num_heads = adm.num_heads or c // adm.head_channels
    self.new_order = adm.new_attention_order
    self.norm = nn.GroupNorm(adm.groups, c)
    self.qkv = nn.Conv1d(c, 3 * c, 1)
    self.proj_out = nn.Conv1d(c, c, 1)

  def forward(self, x, emb):
    del emb
    b, c, height, width = x.shape
    flat = x.reshape(b, c, height * width)
    qkv = self.qkv(self.norm(flat))
    n, d = self.num_heads, c // self.num_heads
    if self.new_order:  # all of q, then k, then v, heads within each
      q, k, v = qkv.reshape(b, 3, n, d, -1).unbind(1)
    else:  # head after head, q, k and v within each
      q, k, v = qkv.reshape(b, n, 3, d, -1).unbind(2)
    weights = torch.softmax(torch.einsum('bnds,bndt->bnst', q, k) / math.sqrt(d), dim=-1)
    out = torch.einsum('bnst,bndt->bnds', weights, v).reshape(b, c, -1)
    return (flat + self.proj_out(out)).reshape(x.shape)


class Blocks(nn.ModuleList):
  """Blocks in a row, numbered as in the files."""

  def forward(self, x, emb):
    for block in self:
      x = block(x, emb) if isinstance(block, ResBlock | Attention) else block(x)
    return x


def way_down(adm: ADM) -> tuple[nn.ModuleList, list[int]]:
  """`input_blocks`, and the width after each."""
  c, size = adm.channels * adm.channel_mults[0], adm.image_size
  blocks, after = nn.ModuleList([Blocks([nn.Conv2d(3, c, 3, padding=1)])]), [c]
  levels = list(enumerate(adm.channels * mult for mult in adm.channel_mults))
  for level, width in levels:
    for _ in range(adm.num_blocks):
      blocks.append(Blocks(with_attention(adm, ResBlock(adm, c, width), width, size)))
      c = width
      after.append(c)
    if level < len(levels) - 1:
      blocks.append(Blocks([ResBlock(adm, c, c, nn.AvgPool2d(2))]))
      size //= 2
      after.append(c)
  return blocks, after


def with_attention(adm, block, c, size):
  """The block, and attention where its level has it."""
  return [block, Attention(adm, c)] if size in adm.attention_resolutions else [block]


def middle(adm, c):
  """`middle_block`."""
  return Blocks([ResBlock(adm, c, c), Attention(adm, c), ResBlock(adm, c, c)])


def time_embed(adm):
  """`time_embed`: of what `sinusoids` gives."""
  c_emb = 4 * adm.channels
  return nn.Sequential(nn.Linear(adm.channels, c_emb), nn.SiLU(), nn.Linear(c_emb, c_emb))


def sinusoids(adm, t):
  """Cosines, then sines of the times: (B,) → (B, channels)."""
  half = adm.channels // 2
  angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
  return torch.cat([angles.cos(), angles.sin()], dim=1)


class UNet(nn.Module):
  """(x (B, 3, H, W), t (B,) in 0..999, classes (B,)) → (B, out_channels, H, W)."""

  def __init__(self, adm: ADM):
    super().__init__()
    self.adm = adm
    self.time_embed = time_embed(adm)
    self.label_emb = nn.Embedding(adm.num_classes, 4 * adm.channels)
    self.input_blocks, skips = way_down(adm)
    c, size = skips[-1], adm.image_size >> (len(adm.channel_mults) - 1)
    self.middle_block = middle(adm, c)
    self.output_blocks = nn.ModuleList()
    widths = [adm.channels * mult for mult in adm.channel_mults]
    for level, width in reversed(list(enumerate(widths))):
      for i in range(adm.num_blocks + 1):
        blocks = with_attention(adm, ResBlock(adm, c + skips.pop(), width), width, size)
        c = width
        if level > 0 and i == adm.num_blocks:
          blocks.append(ResBlock(adm, c, c, nn.Upsample(scale_factor=2, mode='nearest')))
          size *= 2
        self.output_blocks.append(Blocks(blocks))
    self.out = nn.Sequential(
      nn.GroupNorm(adm.groups, c), nn.SiLU(), nn.Conv2d(c, adm.out_channels, 3, padding=1)
    )

  def forward(self, x, t, classes):
    emb = self.time_embed(sinusoids(self.adm, t)) + self.label_emb(classes)
    skips = []
    for blocks in self.input_blocks:
      x = blocks(x, emb)
      skips.append(x)
    x = self.middle_block(x, emb)
    for blocks in self.output_blocks:
      x = blocks(torch.cat([x, skips.pop()], dim=1), emb)
    return self.out(x)


def random(adm: ADM, seed: int = 0, make: Callable[[ADM], nn.Module] = UNet) -> nn.Module:
  """A network whose every parameter matters: none is zero, activations neither grow nor vanish."""
  torch.manual_seed(seed)
  network = make(adm).eval()
  with torch.no_grad():
    for name, p in network.named_parameters():
      if p.ndim == 1:  # biases, and the scales of norms
        is_scale = name.endswith('weight')
        p.uniform_(0.75, 1.25) if is_scale else p.normal_(0, 0.1)
      elif name.startswith('label_emb'):
        p.normal_()
      else:
        p.normal_(0, p[0].numel() ** -0.5)
  return network


def ours(reference: ADM, lambda_embedding: str, **changes) -> unet.UNetConfig:
  """Our network of the same architecture, with ε for its only output and a row for ∅."""
  same = ('channels', 'channel_mults', 'num_blocks', 'attention_resolutions', 'head_channels')
  config = unet.UNetConfig(
    image_shape=(reference.image_size, reference.image_size, 3),
    num_classes=reference.num_classes,
    **{name: getattr(reference, name) for name in same},
    num_heads=reference.num_heads,
    norm_groups=reference.groups,
    dropout=0.0,
    dtype='float32',
    remat=False,
    lambda_embedding=lambda_embedding,
  )
  return dataclasses.replace(config, **changes)


def tensors_of(network: nn.Module) -> dict[str, np.ndarray]:
  """What a file of the network's holds."""
  return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def to_torch(images: np.ndarray) -> torch.Tensor:
  """(B, H, W, C) → (B, C, H, W)."""
  return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2).contiguous()
