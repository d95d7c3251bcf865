"""ImageNet 128×128, ADM's network, as in Section 4 and Table 2. Other fields: imagenet64.py.

The paper's result, which nobody has yet repeated with this code: FID 2.43 at w = 0.3, IS 421.03 at
w = 4 (T = 256). Table 2 is one model sampled with T = 128, 256 and 1024.
Cost by `--plan`, on eight H100 at 40 % of their peak: 109 hours for the model, then 9, 18 and 73
for the 14 × 50 000 samples at each T; in all 209 hours, 1 671 of one H100.

Sources are abbreviated as in imagenet64.
"""

from ml_collections import ConfigDict

from configs import imagenet64


def get_config() -> ConfigDict:
  """The config, as data."""
  config = imagenet64.get_config()
  config.data.name = 'imagenet128'

  # [ADM], all of it: 421 523 715 parameters.
  config.model.channels = 256
  config.model.channel_mults = (1, 1, 2, 3, 4)
  config.model.num_blocks = 2
  config.model.head_channels = None
  config.model.num_heads = 4
  config.model.dropout = 0.0

  config.method.p_uncond = 0.1  # not in the paper for 128×128; the best FID of Table 1
  config.train.batch_size = 256  # [ADM]
  config.train.num_steps = 2_700_000  # [4]
  config.train.learning_rate = 1e-4  # [ADM]

  config.sample.sampler.v = 0.2  # [4]
  config.sample.sampler.num_steps = 256  # T, Table 2: 128, 256 and 1024
  config.sample.batch_size = 256  # [ours]

  return config
