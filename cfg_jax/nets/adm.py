r"""Networks and classifiers of OpenAI's guided-diffusion (ADM) → a run.

  python -m cfg_jax.nets.adm --config configs/imagenet64.py --workdir runs/adm64 \
      --weights 64x64_diffusion.pt
  python -m cfg_jax.generate --workdir runs/adm64 --num_samples 16
  python -m cfg_jax.nets.adm --config configs/classifier_imagenet64.py --workdir runs/guide64 \
      --weights 64x64_classifier.pt

Takes the class-conditional `64x64_diffusion.pt` and `128x128_diffusion.pt` of Dhariwal & Nichol
(2021), and what guided-diffusion itself leaves of a training with the same flags:
`ema_0.9999_540000.pt`, in float32, whose name tells the step (or `model540000.pt`, not averaged).
The network is that of our configs but for three things:

- It was trained on 1000 discrete times. `model.lambda_embedding` maps λ to them, and λ_min and
  λ_max become the ends of its schedule.
- Its last three outputs, for the variance, are dropped: Algorithm 2 has a variance of its own. Its
  times are the grids `cosine` (64×64) and `linear` (128×128) of `sample.sampler`, where `ddpm` has
  DDPM's two fixed variances, and `ddim` is ADM's fast sampler.
- It has no ∅. The row for ∅ is the mean of the classes' rows: nobody trained it, the run's config
  says so with method.p_uncond = 0, and `generate` therefore refuses every w but 0.

And the classifiers of noisy images, `64x64_classifier.pt`, `128x128_classifier.pt` and, with the
config that `classifier_imagenet128` names, `256x256_classifier.pt`. Nothing of theirs is dropped or
made up. `adm_layout` says how tensors lie.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cfg_jax.core import command, imported, runtime
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.nets import encoder, torch_file, unet
from cfg_jax.nets.adm_layout import convert
from cfg_jax.nets.embed import adm_lambdas


@dataclasses.dataclass(frozen=True)
class Published:
  """What the config of a network's size does not say of the published weights."""

  lambda_embedding: str  # the schedule of its discrete times
  heads_first: bool  # the layout of its blocks' qkv: see `adm_layout`
  num_steps: int  # of its training
  channels: int
  input_blocks: int
  config: str


# By image size.
NETWORKS = {  # Dhariwal & Nichol 2021, Table 11
  64: Published('adm_cosine', False, 540_000, 192, 16, 'configs/imagenet64.py'),
  128: Published('adm_linear', True, 4_360_000, 256, 15, 'configs/imagenet128.py'),
}
CLASSIFIERS = {  # Table 12; the blocks' attention has the older layout at every size
  64: Published('adm_cosine', True, 300_000, 128, 20, 'configs/classifier_imagenet64.py'),
  128: Published('adm_linear', True, 300_000, 128, 15, 'configs/classifier_imagenet128.py'),
  256: Published(
    'adm_linear',
    True,
    500_000,
    128,
    18,
    'configs/classifier_imagenet128.py --set data.name=imagenet256 '
    '--set model.channel_mults=1,1,2,2,4,4',
  ),
}


def import_run(config: ConfigDict, weights: Path, workdir: Path) -> None:
  """Makes the run directory: one checkpoint, of the EMA only (what was published), and config.json.

  config: one that `NETWORKS` and `CLASSIFIERS` name; the run's own differs as `as_trained` says.
  Raises ValueError, before anything is written, where workdir is not empty or the tensors are not
  the network's.
  """
  workdir = Path(workdir)
  imported.check_new(workdir)
  classifies = config.method.name == 'classifier'
  known = CLASSIFIERS if classifies else NETWORKS
  size = registry.of(config.data).image_shape[0]
  if size not in known:
    those = ' and '.join(sorted({p.config.split()[0] for p in known.values()}, key=len))
    raise UserError(
      f'data.name={config.data.name!r} has {size}×{size} images; the published '
      f'{"classifiers" if classifies else "networks"} are those of {those}.'
    )
  published = known[size]
  config = as_trained(config, published, step_of(weights))
  network = encoder.of(config) if classifies else unet.of(config)
  tensors = torch_file.read(weights)
  try:
    ema = convert(tensors, network, published.heads_first)
  except ValueError as error:
    raise UserError(f'--weights={weights}: {error} {described(tensors)}'.rstrip()) from None
  source = {'imported': str(weights)}
  imported.write(config, config.train.num_steps, {'network': ema}, workdir, source)


def step_of(weights: Path) -> int | None:
  """The step that guided-diffusion writes into a name, as in ema_0.9999_540000.pt; else None."""
  found = re.fullmatch(r'(?:ema_[\d.]+_|model)(\d+)\.pt', Path(weights).name)
  return int(found[1]) if found else None


def described(tensors: dict[str, np.ndarray]) -> str:
  """What a file seems to hold, and which config fits it; '' where nothing is known of it."""
  if not {'time_embed.0.weight', 'input_blocks.0.0.weight'} <= tensors.keys():
    return ''
  channels = tensors['time_embed.0.weight'].shape[-1]
  blocks = len({name.split('.')[1] for name in tensors if name.startswith('input_blocks.')})
  classifies = not any(name.startswith('output_blocks.') for name in tensors)
  if not classifies and 'label_emb.weight' not in tensors:
    return 'Its network knows no classes: give a class-conditional one.'
  what = 'It is a classifier, and' if classifies else 'It'
  for published in (CLASSIFIERS if classifies else NETWORKS).values():
    if (channels, blocks) == (published.channels, published.input_blocks):
      return f'{what} fits --config {published.config}.'
  return f'{what} has {channels} channels and {blocks} input blocks, as none of our configs has.'


def as_trained(config: ConfigDict, published: Published, step: int | None = None) -> ConfigDict:
  """The config with what OpenAI did otherwise: schedule, no ∅, no warm-up, no clipped gradients.

  step: how far the training is; by default as the published networks' was.
  """
  config = config.copy_and_resolve_references().unlock()
  config.model.lambda_embedding = published.lambda_embedding
  lam = adm_lambdas(published.lambda_embedding)
  config.diffusion.update(lambda_min=float(lam[-1]), lambda_max=float(lam[0]))
  config.train.num_steps = step or published.num_steps
  config.train.update(warmup_steps=0, grad_clip=float('inf'))
  if config.method.name == 'classifier':
    config.method.update(noised=True, times=published.lambda_embedding)
  else:
    config.method.p_uncond = 0.0
    config.sample.guidance.w = (0.0,)
  return config.lock()


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  runtime.setup_jax(1)
  workdir, config = flags.FLAGS.workdir, command.config_of_file()
  import_run(config, Path(flags.FLAGS.weights), Path(workdir))
  other = {'bfloat16': 'float32', 'float32': 'bfloat16'}[config.model.dtype]
  print(
    f'The run computes in {config.model.dtype}, with float32 weights, norms and softmax (results '
    f'differ by about a hundredth between bfloat16 and float32). For {other}, import it again with '
    f'--set model.dtype={other}.'
  )
  if 'sample' in config:
    print(f'Sample it: python -m cfg_jax.generate --workdir {workdir} --num_samples 16')
  else:
    print(
      'Guide a run with it: python -m cfg_jax.generate --workdir RUN --w 1 '
      f'--set sample.guidance.pair=classifier --set sample.guidance.guide={workdir}'
    )


def define_flags() -> None:
  """The command's flags."""
  command.define_config_flags()
  flags.DEFINE_string('workdir', None, 'Folder that is to hold the run.', required=True)
  flags.DEFINE_string('weights', None, 'The .pt file.', required=True)


if __name__ == '__main__':
  define_flags()
  command.run(main)
