"""A network of ADM's kind in PyTorch, of the size that images of imagenet64 allow, and its run."""

from pathlib import Path

import torch

from cfg_jax.nets import adm
from experiments import adm_pytorch
from tests.conftest import load_config

TINY = adm_pytorch.ADM(64, 32, (1, 1, 1), 1, (16,), 16, None, new_attention_order=True)
OVERRIDES = {  # of the digits' config
  'data.name': 'imagenet64',
  'model.norm_groups': 32,
  'model.channels': 32,
  'model.channel_mults': (1, 1, 1),
  'model.num_blocks': 1,
  'model.attention_resolutions': (16,),
  'model.head_channels': 16,
  'sample.sampler.name': 'ddpm',
  'sample.sampler.grid': 'paper',
  'sample.sampler.num_steps': 3,
  'sample.num_samples': 2,
  'sample.batch_size': 2,
}


def make(folder: Path) -> tuple[torch.nn.Module, Path, Path]:
  """(reference network, weights, workdir) of an imported run."""
  network = adm_pytorch.random(TINY)
  torch.save(network.state_dict(), folder / 'weights.pt')
  adm.import_run(load_config('digits', **OVERRIDES), folder / 'weights.pt', folder / 'run')
  return network, folder / 'weights.pt', folder / 'run'
