"""ADM's classifier in PyTorch, with the names and shapes of its published files.

Written from the published description (Dhariwal & Nichol 2021, section 4 and appendix A; the pool
is that of CLIP, Radford et al. 2021). `adm_pytorch` has the blocks. How their attention is laid out
is its `new_attention_order`: false in every published classifier.
"""

import dataclasses
import math

import torch
from torch import nn

from experiments import adm_pytorch
from experiments.adm_pytorch import ADM


@dataclasses.dataclass(frozen=True)
class Classifier(ADM):
  """An `ADM`, with its head."""

  pool: str = 'attention'


ALL = dict(attention_resolutions=(32, 16, 8), head_channels=64, num_heads=None)
ALL |= dict(new_attention_order=False)
PUBLISHED = {
  64: Classifier(64, 128, (1, 2, 3, 4), 4, **ALL),
  128: Classifier(128, 128, (1, 1, 2, 3, 4), 2, **ALL),
  256: Classifier(256, 128, (1, 1, 2, 2, 4, 4), 2, **ALL),
}


class AttentionPool(nn.Module):
  """What the mean of all positions finds in them and itself."""

  def __init__(self, size, c, head_channels, num_classes):
    super().__init__()
    self.positional_embedding = nn.Parameter(torch.randn(c, size**2 + 1) / c**0.5)
    self.qkv_proj = nn.Conv1d(c, 3 * c, 1)
    self.c_proj = nn.Conv1d(c, num_classes, 1)
    self.head_channels = head_channels

  def forward(self, x):
    tokens = x.flatten(2)
    tokens = torch.cat([tokens.mean(2, keepdim=True), tokens], dim=2) + self.positional_embedding
    b, c, n = tokens.shape
    parts = self.qkv_proj(tokens).reshape(b, 3, c // self.head_channels, self.head_channels, n)
    q, k, v = parts.unbind(1)  # all of q, then k, then v
    weights = torch.softmax(torch.einsum('bhds,bhdt->bhst', q, k) / math.sqrt(q.shape[2]), dim=-1)
    found = torch.einsum('bhst,bhdt->bhds', weights, v).reshape(b, c, n)
    return self.c_proj(found)[:, :, 0]


class Network(nn.Module):
  """(x (B, 3, H, W), t (B,) in 0..999) → logits (B, num_classes)."""

  def __init__(self, adm: Classifier):
    super().__init__()
    self.adm = adm
    self.time_embed = adm_pytorch.time_embed(adm)
    self.input_blocks, widths = adm_pytorch.way_down(adm)
    c, size = widths[-1], adm.image_size >> (len(adm.channel_mults) - 1)
    self.middle_block = adm_pytorch.middle(adm, c)
    self.out = {
      'attention': lambda: nn.Sequential(
        nn.GroupNorm(adm.groups, c),
        nn.SiLU(),
        AttentionPool(size, c, adm.head_channels, adm.num_classes),
      ),
      'adaptive': lambda: nn.Sequential(
        nn.GroupNorm(adm.groups, c),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Conv2d(c, adm.num_classes, 1),
        nn.Flatten(),
      ),
      'spatial': lambda: nn.Sequential(
        nn.Linear(sum(widths) + c, 2048), nn.ReLU(), nn.Linear(2048, adm.num_classes)
      ),
    }[adm.pool]()

  def forward(self, x, t):
    emb = self.time_embed(adm_pytorch.sinusoids(self.adm, t))
    means = []
    for blocks in [*self.input_blocks, self.middle_block]:
      x = blocks(x, emb)
      means.append(x.mean((2, 3)))
    return self.out(torch.cat(means, dim=1) if self.adm.pool == 'spatial' else x)
