"""ImageNet 64×64, ADM's network, as in Section 4 and Table 1.

The paper's result, which nobody has yet repeated with this code: FID 1.55 at w = 0.1, IS 260.2 at
w = 4 (p_uncond = 0.1). Table 1 is three such models: --set method.p_uncond=0.1, 0.2 and 0.5.
Cost by `--plan`, on eight H100 at 40 % of their peak: 46 hours a model, then 6.4 for the
14 × 50 000 samples of a column of the table; all of it 156 hours, 1 247 of one H100.

[4] Section 4 of the paper. [ADM] Dhariwal & Nichol 2021, whose architecture and hyperparameters the
paper says it shares; its tables and its public code (guided-diffusion). [code] the authors' own
public diffusion code (google-research), where the paper is silent. [ours] no source: our choice.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
  """The config, as data."""
  config = ConfigDict()
  config.version = 3  # of the layout of the fields
  config.seed = 0  # [ours]

  config.data = ConfigDict()
  config.data.name = 'imagenet64'  # area-downsampled [4], of the central square [code]
  config.data.dir = '~/tensorflow_datasets'  # TFDS's own default
  config.data.flip = True  # [code]

  config.model = ConfigDict()  # 295 900 035 parameters
  config.model.channels = 192  # [ADM]
  config.model.channel_mults = (1, 2, 3, 4)  # [ADM]
  config.model.num_blocks = 3  # [ADM]
  config.model.attention_resolutions = (32, 16, 8)  # [ADM]
  config.model.head_channels = 64  # [ADM]
  config.model.num_heads = placeholder(int)  # given by head_channels
  config.model.dropout = 0.1  # [ADM]
  config.model.norm_groups = 32  # [ADM]
  config.model.dtype = 'bfloat16'  # [ADM] has float16 and loss scaling; float32 weights as here
  config.model.remat = True  # [ours]: memory for a third more work, the same result

  config.diffusion = ConfigDict()
  config.diffusion.lambda_min = -20.0  # [4]
  config.diffusion.lambda_max = 20.0  # [4]

  config.method = ConfigDict()
  config.method.name = 'classifier_free'
  config.method.p_uncond = 0.1  # [4], Table 1: 0.1, 0.2 and 0.5

  config.train = ConfigDict()
  config.train.batch_size = 2048  # [ADM]
  # [ours] By `--plan`, without the compiler's scratch space, each of 8 devices needs 44 GB so; with
  # microbatches = 4 and shard_optimizer 13 GB. Neither changes the result, but for rounding.
  config.train.microbatches = 1
  config.train.shard_optimizer = False  # EMA and Adam's moments shared out over the devices
  config.train.num_steps = 400_000  # [4]
  config.train.learning_rate = 3e-4  # [ADM]
  config.train.warmup_steps = 1000  # [code]
  config.train.adam_b1 = 0.9  # [ADM]
  config.train.adam_b2 = 0.999  # [ADM]
  config.train.grad_clip = 1.0  # [code]
  config.train.ema_decay = 0.9999  # [ADM]
  config.train.log_every = 100  # [ours]
  config.train.sample_every = 10_000  # [ours]: steps between grids of samples in TensorBoard
  config.train.checkpoint_every = 2000  # [ours]
  config.train.keep_checkpoints = 2  # [ours]

  config.sample = ConfigDict()
  config.sample.sampler = ConfigDict()
  config.sample.sampler.name = 'ddpm'  # Algorithm 2
  config.sample.sampler.grid = 'paper'  # Section 2
  config.sample.sampler.v = 0.3  # [4]
  config.sample.sampler.num_steps = 256  # T: not in the paper for 64×64; Table 2 has it for 128×128
  config.sample.sampler.clip_x = True  # [code]
  config.sample.guidance = ConfigDict()
  config.sample.guidance.pair = 'null'  # with ∅, as in Algorithm 2
  config.sample.guidance.rule = 'classifier_free'  # Algorithm 2
  config.sample.guidance.w = (
    0.0,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
    2.0,
    3.0,
    4.0,
  )  # Table 1
  config.sample.num_samples = 50_000  # for each w [4]
  config.sample.batch_size = 512  # [ours]
  config.sample.labels = 'random'  # not in the paper; [ours], as we recall [ADM]'s script
  config.sample.ema = True  # [ADM]
  config.sample.seed = 0  # [ours]

  config.evaluate = ConfigDict()
  config.evaluate.extractor = 'inception'  # FID and IS [4]

  return config
