"""MNIST, 28×28 grey: the next size after the digits, hours on a laptop or minutes on a GPU.

Fields that are not set here are those of digits.py. Not in the paper: all of it is our choice,
without a promise, and nobody has run it to its end yet: 8.3e14 FLOPs of training, so 2.3 hours on
two CPU cores that do 1e11 a second, and for this machine
`python -m cfg_jax.plan --config configs/mnist.py --plan.device=here`.

Inception, which FID and IS are defined by, was trained on colour photographs of 299 pixels: on grey
28×28 images its numbers compare runs of this config with one another, and say little by themselves.
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
