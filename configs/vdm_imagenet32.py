"""Variational Diffusion Models on ImageNet 32×32: the paper has 3.72 bits per dimension.

Fields that are not set here are those of vdm_cifar10.py, with its sources. The paper's images are
the downsampled ones of van den Oord et al. 2016; ours are area-downsampled from the central square,
so that bits per dimension may differ. Not run here yet.
"""

from ml_collections import ConfigDict

from configs import vdm_cifar10


def get_config() -> ConfigDict:
  """The config, as data."""
  config = vdm_cifar10.get_config()
  config.data.name = 'imagenet32'

  config.model.channels = 256  # [code]

  return config
