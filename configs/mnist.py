"""MNIST, 28×28 grey: the next size after the digits, hours on a laptop or minutes on a GPU.

What is not here is the digits'. Not in the paper: all of it is our choice, without a promise.
Cost: 1.0e15 FLOPs by `--plan`, so three hours on two CPU cores that do 1e11 a second.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config() -> ConfigDict:
  """The config, as data."""
  config = digits.get_config()
  config.data.name = 'mnist'

  config.model.channels = 32
  config.model.head_channels = 32
  config.model.channel_mults = (1, 2, 2)  # 28, 14 and 7 pixels
  config.model.attention_resolutions = (7,)

  config.train.batch_size = 128
  config.train.num_steps = 5000
  config.train.learning_rate = 1e-3
  config.train.ema_decay = 0.999
  config.train.checkpoint_every = 1000

  config.sample.sampler.num_steps = 16
  config.evaluate.extractor = 'inception'

  return config
