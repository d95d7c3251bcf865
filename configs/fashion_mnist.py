"""Fashion-MNIST, 28×28 grey: clothes in place of MNIST's digits, at the same cost (see mnist.py).

Fields that are not set here are those of mnist.py, where it stands that Inception is poor on such
images. Not in the paper: all of it is our choice, without a promise. fashion_mnist_small.py takes a
quarter of an hour.
"""

from ml_collections import ConfigDict

from configs import mnist


def get_config() -> ConfigDict:
  """The config, as data."""
  config = mnist.get_config()
  config.data.name = 'fashion_mnist'
  config.data.flip = True  # mirrored clothes are clothes
  return config
