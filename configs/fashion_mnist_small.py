"""Fashion-MNIST, 28×28 grey, in about a quarter of an hour on two CPU cores.

Fields that are not set here are those of fashion_mnist.py; mnist.py says what Inception is worth
on such images. Not in the paper: all of it is our choice, without a promise. Run once, beside other
work: 16 minutes of processor time, so 8 and more on two free cores. The loss is 0.25 after 50 steps
and 0.084 at the end.
"""

from ml_collections import ConfigDict

from configs import fashion_mnist


def get_config() -> ConfigDict:
  """The config, as data."""
  config = fashion_mnist.get_config()

  config.model.channels = 32
  config.model.head_channels = 32
  config.model.channel_mults = (1, 1, 2)  # 28, 14 and 7 pixels

  config.train.batch_size = 64
  config.train.num_steps = 1500
  config.train.ema_decay = 0.995
  config.train.checkpoint_every = 250

  config.sample.num_samples = 100
  config.sample.guidance.w = (0.0, 1.0, 3.0)

  return config
