"""A classifier of noisy digits, 8×8, which guides as ADM's does; the digits of digits.py.

With --set method.noised=false it is an ordinary classifier. Every fifth digit is held out.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
  """The config, as data."""
  config = ConfigDict()
  config.version = 3  # of the layout of the fields
  config.seed = 0

  config.data = ConfigDict()
  config.data.name = 'digits'
  config.data.dir = '~/tensorflow_datasets'  # TFDS's own default
  config.data.flip = False  # a mirrored 2 is no 2
  config.data.held_out = 5

  config.model = ConfigDict()  # the encoder half of the digits' network
  config.model.channels = 48
  config.model.channel_mults = (1, 2)
  config.model.num_blocks = 1
  config.model.attention_resolutions = (4,)
  config.model.head_channels = 48
  config.model.num_heads = placeholder(int)
  config.model.dropout = 0.0
  config.model.norm_groups = 16
  config.model.dtype = 'float32'
  config.model.remat = False
  config.model.pool = 'attention'  # ADM

  config.diffusion = ConfigDict()
  config.diffusion.lambda_min = -20.0  # as the network that it guides
  config.diffusion.lambda_max = 20.0

  config.method = ConfigDict()
  config.method.name = 'classifier'
  config.method.noised = True
  config.method.times = 'paper'  # its p(λ)

  config.train = ConfigDict()
  config.train.batch_size = 64
  config.train.microbatches = 1
  config.train.shard_optimizer = False
  config.train.num_steps = 1200
  config.train.learning_rate = 1e-3
  config.train.warmup_steps = 100
  config.train.adam_b1 = 0.9  # ADM
  config.train.adam_b2 = 0.999  # ADM
  config.train.weight_decay = 0.05  # ADM, 128×128
  config.train.rate_decay = 'linear'  # ADM
  config.train.grad_clip = 1.0
  config.train.ema_decay = 0.99
  config.train.log_every = 100
  config.train.sample_every = 0  # it draws nothing
  config.train.checkpoint_every = 600
  config.train.keep_checkpoints = 2

  return config
