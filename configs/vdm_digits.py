"""Variational Diffusion Models on the digits, 8×8: bits per dimension of held-out digits, samples.

[VDM] Kingma et al. 2021 and their public configs; the others are sized for two CPU cores. Every
fifth digit is held out.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

GRIDS = (('method.p_uncond=0.1',),)  # its sweep: one model


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

  config.model = ConfigDict()  # [VDM] has 128 channels and 32 blocks for 32×32
  config.model.channels = 48
  config.model.num_blocks = 4
  config.model.attend_always = False  # [VDM]
  config.model.fourier = (3, 4)  # periods of two levels and one, as [VDM]'s 7 and 8 have of 256
  config.model.dropout = 0.1  # [VDM]
  config.model.norm_groups = 16
  config.model.dtype = 'float32'
  config.model.remat = False

  config.diffusion = ConfigDict()  # where the learned ends begin
  config.diffusion.lambda_min = -5.0  # [VDM]
  config.diffusion.lambda_max = 8.0  # as certain of 17 levels as [VDM]'s 13.3 is of 256

  config.method = ConfigDict()
  config.method.name = 'vdm'
  config.method.p_uncond = 0.1  # Ho & Salimans; [VDM] has no classes
  config.method.network = 'vdm'
  config.method.schedule = 'network'  # [VDM]
  config.method.schedule_rate = 10.0  # of its learning, times the network's; [VDM]: 1, for longer
  config.method.num_steps = placeholder(int)  # T; none is continuous time [VDM]
  config.method.levels = 17

  config.train = ConfigDict()
  config.train.batch_size = 64
  config.train.microbatches = 1
  config.train.shard_optimizer = False
  config.train.num_steps = 2000
  config.train.learning_rate = 1e-3  # [VDM]: 2e-4
  config.train.warmup_steps = 100  # [VDM]
  config.train.adam_b1 = 0.9  # [VDM]
  config.train.adam_b2 = 0.99  # [VDM]
  config.train.weight_decay = 0.01  # [VDM], not of biases
  config.train.grad_clip = float('inf')  # [VDM]
  config.train.ema_decay = 0.995  # [VDM]: 0.9999, over 5000 times the steps
  config.train.log_every = 100
  config.train.sample_every = 0  # steps between grids of samples in TensorBoard; 0 is never
  config.train.checkpoint_every = 500
  config.train.keep_checkpoints = 2

  config.sample = ConfigDict()
  config.sample.sampler = ConfigDict()
  config.sample.sampler.name = 'ddpm'  # [VDM]'s ancestral sampler is that of v = 0
  config.sample.sampler.grid = 'learned'  # [VDM]: evenly spaced in t
  config.sample.sampler.v = 0.0  # [VDM]
  config.sample.sampler.num_steps = 32  # [VDM]: 1000
  config.sample.sampler.clip_x = True
  config.sample.sampler.quantile = 0.0
  config.sample.guidance = ConfigDict()
  config.sample.guidance.pair = 'null'
  config.sample.guidance.rule = 'classifier_free'
  config.sample.guidance.w = (0.0, 0.3, 1.0)
  config.sample.num_samples = 400  # for each w
  config.sample.batch_size = 200
  config.sample.labels = 'balanced'
  config.sample.ema = True
  config.sample.seed = 0

  config.evaluate = ConfigDict()
  config.evaluate.extractor = 'digits'

  return config
