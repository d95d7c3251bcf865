"""Handwritten digits, 8×8: the paper's trade-off in minutes on a laptop.

Numbers with a source are the paper's or the authors'; the others are sized for two CPU cores.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Its sweep: three values of p_uncond by the sampler below, and one curve of Algorithm 2.
GRIDS = (
  ('method.p_uncond=0.1,0.2,0.5',),  # Table 1
  (
    'method.p_uncond=0.1',
    'sample.sampler.name=ddpm',
    'sample.sampler.grid=paper',
    'sample.sampler.num_steps=12',
    'sample.sampler.v=0.3',  # Section 4, 64×64
    'sample.guidance.w=0,0.1,1',
  ),
)


def get_config() -> ConfigDict:
  """The config, as data."""
  config = ConfigDict()
  config.version = 3  # of the layout of the fields
  config.seed = 0

  config.data = ConfigDict()
  config.data.name = 'digits'
  config.data.dir = '~/tensorflow_datasets'  # TFDS's own default
  config.data.flip = False  # a mirrored 2 is no 2

  config.model = ConfigDict()  # ADM's network at a 160th of its size
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

  config.diffusion = ConfigDict()
  config.diffusion.lambda_min = -20.0  # Section 4
  config.diffusion.lambda_max = 20.0  # Section 4

  config.method = ConfigDict()
  config.method.name = 'classifier_free'
  config.method.p_uncond = 0.1  # Algorithm 1; Table 1 also has 0.2 and 0.5

  config.train = ConfigDict()
  config.train.batch_size = 32
  config.train.microbatches = 1
  config.train.shard_optimizer = False
  config.train.num_steps = 1100
  config.train.learning_rate = 2e-3
  config.train.warmup_steps = 100
  config.train.adam_b1 = 0.9  # ADM
  config.train.adam_b2 = 0.999  # ADM
  config.train.grad_clip = 1.0  # the authors' public code
  config.train.ema_decay = 0.995  # ADM: 0.9999, over 1000 times the steps
  config.train.log_every = 100
  config.train.sample_every = 0  # steps between grids of samples in TensorBoard; 0 is never
  config.train.checkpoint_every = 550
  config.train.keep_checkpoints = 2

  config.sample = ConfigDict()
  config.sample.sampler = ConfigDict()  # beside Algorithm 2 in GRIDS
  config.sample.sampler.name = 'dpmpp'
  config.sample.sampler.order = 2
  config.sample.sampler.singlestep = False
  config.sample.sampler.sde = False
  config.sample.sampler.grid = 'edm'
  config.sample.sampler.sigma_min = 0.02
  config.sample.sampler.sigma_max = 50.0
  config.sample.sampler.rho = 7.0
  config.sample.sampler.num_steps = 6
  config.sample.sampler.clip_x = True  # the authors' public code
  config.sample.sampler.quantile = 0.0
  config.sample.guidance = ConfigDict()
  config.sample.guidance.pair = 'null'  # with ∅, as in Algorithm 2
  config.sample.guidance.rule = 'classifier_free'  # Algorithm 2
  config.sample.guidance.w = (0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 4.0)  # Table 1 has these among others
  config.sample.num_samples = 1000  # for each w
  config.sample.batch_size = 200
  config.sample.labels = 'balanced'
  config.sample.ema = True
  config.sample.seed = 0

  config.evaluate = ConfigDict()
  config.evaluate.extractor = 'digits'

  return config
