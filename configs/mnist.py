"""MNIST, 28×28 grey: the next size after the digits, hours on a laptop or minutes on a GPU.

What is not here is the digits'. Not in the paper: all of it is our choice, without a promise.
Cost: `python -m cfg_jax.train --config configs/mnist.py --plan`.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config() -> ConfigDict:
  """The config, as data."""
  config = digits.get_config()
  config.data.name = 'mnist'

  config.model.channel_mults = (1, 2, 2)  # 28, 14 and 7 pixels
  config.model.attention_resolutions = (7,)

  config.train.batch_size = 128
  config.train.num_steps = 10_000
  config.train.ema_decay = 0.999
  config.train.checkpoint_every = 1000

  config.sample.num_steps = 64
  config.evaluate.extractor = 'inception'

  return config
