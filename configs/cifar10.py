"""CIFAR-10, 32×32: a night on one GPU, between the laptop and ImageNet. Ho & Salimans have no such.

Fields that are not set here are those of imagenet64.py. [DDPM] is Ho et al. 2020, appendix B: its
width, depth, dropout, batch, rate and steps, in ADM's architecture. No result is promised; DDPM,
without classes, has FID 3.17. Not run here yet; cost by `--plan`, on one H100 at 40 % of its peak:
2.9 hours, and 3.2 for the samples.
"""

from ml_collections import ConfigDict

from configs import imagenet64


def get_config() -> ConfigDict:
  """The config, as data."""
  config = imagenet64.get_config()
  config.data.name = 'cifar10'

  config.model.channels = 128  # [DDPM]
  config.model.channel_mults = (1, 2, 2, 2)  # [DDPM]
  config.model.num_blocks = 2  # [DDPM]
  config.model.attention_resolutions = (16,)  # [DDPM]
  config.model.remat = False  # it fits without

  config.train.batch_size = 128  # [DDPM]
  config.train.num_steps = 800_000  # [DDPM]
  config.train.learning_rate = 2e-4  # [DDPM]
  config.train.checkpoint_every = 20_000

  return config
