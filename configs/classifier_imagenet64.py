"""ADM's classifier of noisy ImageNet 64×64, which guides its samplers: Dhariwal & Nichol 2021.

Nobody has trained it with this code yet. ADM's own is imported by `python -m cfg_jax.nets.adm`. It
sees the thousand times of ADM's cosine schedule, λ from −19.8 to 10.1, and so guides ADM's network
of 64×64. To guide one that configs/imagenet64.py trained, which goes from −20 to 20, train it with
--set method.times=paper --set model.lambda_embedding=arctan.

[ADM] the paper's Table 12 and Section 4. [code] its public code, guided-diffusion. [ours] no
source: our choice.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
  """The config, as data."""
  config = ConfigDict()
  config.version = 3  # of the layout of the fields
  config.seed = 0  # [ours]

  config.data = ConfigDict()
  config.data.name = 'imagenet64'
  config.data.dir = '~/tensorflow_datasets'  # TFDS's own default
  config.data.flip = True  # [code]
  config.data.crop = True  # [ADM]; of the prepared image where [code] has the whole photograph
  config.data.held_out = 0  # none of the training images: there is the split `validation`

  config.model = ConfigDict()  # 65 438 568 parameters, as [ADM]
  config.model.channels = 128  # [ADM]
  config.model.channel_mults = (1, 2, 3, 4)  # [code]
  config.model.num_blocks = 4  # [ADM]: its depth. [code] has 2 by default, which is no 64×64 file's
  config.model.attention_resolutions = (32, 16, 8)  # [ADM]
  config.model.head_channels = 64  # [code]
  config.model.num_heads = placeholder(int)  # given by head_channels
  config.model.dropout = 0.0  # [code]
  config.model.norm_groups = 32  # [code]
  config.model.dtype = 'bfloat16'  # [code] has float16 and loss scaling; float32 weights as here
  config.model.remat = False  # [code]
  config.model.lambda_embedding = 'adm_cosine'  # [ADM]
  config.model.pool = 'attention'  # [ADM]

  config.diffusion = ConfigDict()  # where method.times is 'paper'
  config.diffusion.lambda_min = -20.0  # as imagenet64.py
  config.diffusion.lambda_max = 20.0  # as imagenet64.py

  config.method = ConfigDict()
  config.method.name = 'classifier'
  config.method.noised = True
  config.method.times = 'adm_cosine'  # [ADM]: the schedule of the network that it guides

  config.train = ConfigDict()
  config.train.batch_size = 1024  # [ADM]
  config.train.microbatches = 1  # [ours]
  config.train.shard_optimizer = False  # [ours]
  config.train.num_steps = 300_000  # [ADM]
  config.train.learning_rate = 6e-4  # [ADM]
  config.train.warmup_steps = 0  # [code]
  config.train.adam_b1 = 0.9  # [code]
  config.train.adam_b2 = 0.999  # [code]
  config.train.weight_decay = 0.2  # [ADM], AdamW's
  config.train.rate_decay = 'linear'  # [code]: to 0 after the last step
  config.train.grad_clip = float('inf')  # [code]: no clipping
  config.train.ema_decay = 0.9999  # [ADM]; [code] saves the weights as they are
  config.train.log_every = 100  # [ours]
  config.train.sample_every = 0  # it draws nothing
  config.train.checkpoint_every = 2000  # [ours]
  config.train.keep_checkpoints = 2  # [ours]

  return config
