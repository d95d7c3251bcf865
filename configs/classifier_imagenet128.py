"""ADM's classifier of noisy ImageNet 128×128. Other fields, and sources: classifier_imagenet64.py.

It knows the times of ADM's linear schedule, λ from −10.1 to 9.2. The 256×256 classifier is this one
with --set data.name=imagenet256 --set model.channel_mults=1,1,2,2,4,4 --set train.num_steps=500000.
"""

from ml_collections import ConfigDict

from configs import classifier_imagenet64


def get_config() -> ConfigDict:
  """The config, as data."""
  config = classifier_imagenet64.get_config()
  config.data.name = 'imagenet128'

  config.model.channel_mults = (1, 1, 2, 3, 4)  # [code]: 42 568 040 parameters, as [ADM]
  config.model.num_blocks = 2  # [ADM]: its depth
  config.model.lambda_embedding = 'adm_linear'  # [ADM]
  config.method.times = 'adm_linear'  # [ADM]

  config.train.batch_size = 256  # [ADM]
  config.train.num_steps = 300_000  # [ADM]
  config.train.learning_rate = 3e-4  # [ADM]
  config.train.weight_decay = 0.05  # [ADM]

  return config
