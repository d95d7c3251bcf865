r"""Networks of OpenAI's guided-diffusion (ADM) → a run that `generate` can sample.

  python -m cfg_jax.nets.adm --config configs/imagenet64.py --workdir runs/adm64 \
      --weights 64x64_diffusion.pt
  python -m cfg_jax.generate --workdir runs/adm64 --num_samples 16

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
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cfg_jax.core import command, imported, runtime
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.nets import torch_file, unet
from cfg_jax.nets.embed import adm_lambdas


@dataclasses.dataclass(frozen=True)
class Published:
  """What the config of a network's size does not say of the published weights."""

  lambda_embedding: str  # the schedule of its discrete times
  heads_first: bool  # qkv gives q, k and v of the first head, then of the next; ours all q first
  num_steps: int  # of its training
  channels: int
  input_blocks: int


PUBLISHED = {  # by image size. The numbers of steps are recalled, not read: check before citing.
  64: Published('adm_cosine', False, num_steps=540_000, channels=192, input_blocks=16),
  128: Published('adm_linear', True, num_steps=4_360_000, channels=256, input_blocks=15),
}

# Our names of a block's parts, and those of the files.
PARTS = {
  'norm_in': 'in_layers.0',
  'conv_in': 'in_layers.2',
  'emb': 'emb_layers.1',
  'norm_out': 'out_layers.0',
  'conv_out': 'out_layers.3',
  'skip': 'skip_connection',
  'norm': 'norm',
  'qkv': 'qkv',
  'proj': 'proj_out',
}
OUTER = {
  'lambda_in': 'time_embed.0',
  'lambda_out': 'time_embed.2',
  'class_emb': 'label_emb',
  'conv_in': 'input_blocks.0.0',
  'norm_out': 'out.0',
  'conv_out': 'out.2',
}


def import_run(config: ConfigDict, weights: Path, workdir: Path) -> None:
  """Makes the run directory: one checkpoint, of the EMA only (what was published), and config.json.

  config: configs/imagenet64.py or imagenet128.py; the run's own differs as `as_trained` says.
  Raises ValueError, before anything is written, where workdir is not empty or the tensors are not
  the network's.
  """
  workdir = Path(workdir)
  imported.check_new(workdir)
  size = registry.of(config.data).image_shape[0]
  if size not in PUBLISHED:
    raise UserError(
      f'data.name={config.data.name!r} has {size}×{size} images; the published networks are those '
      'of configs/imagenet64.py and configs/imagenet128.py.'
    )
  config = as_trained(config, PUBLISHED[size], step_of(weights))
  tensors = torch_file.read(weights)
  try:
    ema = convert(tensors, unet.of(config), PUBLISHED[size].heads_first)
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
  if not any(name.startswith('output_blocks.') for name in tensors):
    return "It is a classifier's: give the weights of a diffusion network."
  if 'label_emb.weight' not in tensors:
    return 'Its network knows no classes: give a class-conditional one.'
  for size, published in PUBLISHED.items():
    if (channels, blocks) == (published.channels, published.input_blocks):
      return f'It fits configs/imagenet{size}.py.'
  return f'It has {channels} channels and {blocks} input blocks, as none of our configs has.'


def as_trained(config: ConfigDict, published: Published, step: int | None = None) -> ConfigDict:
  """The config with what OpenAI did otherwise: schedule, no ∅, no warm-up, no clipped gradients.

  step: how far the training is; by default as the published networks' was.
  """
  config = config.copy_and_resolve_references().unlock()
  config.model.lambda_embedding = published.lambda_embedding
  lam = adm_lambdas(published.lambda_embedding)
  config.diffusion.update(lambda_min=float(lam[-1]), lambda_max=float(lam[0]))
  config.method.p_uncond = 0.0
  config.train.num_steps = step or published.num_steps
  config.train.update(warmup_steps=0, grad_clip=float('inf'))
  config.sample.guidance.w = (0.0,)
  return config.lock()


def convert(
  tensors: dict[str, np.ndarray], network: unet.UNetConfig, heads_first: bool
) -> dict[str, Any]:
  """Our parameters, float32, from ADM's tensors by name, which are those of a state dictionary.

  Takes a network with 6 outputs (for 3 channels) and no ∅; heads_first: see `Published`. Raises
  ValueError that names the first tensor that is missing, unexpected, or of another shape.
  """
  abstract = jax.eval_shape(lambda: unet.create_params(network, 0))
  paths, tree = jax.tree_util.tree_flatten_with_path(abstract)
  leaves = {}  # by ADM's name: our path and shape
  for path, leaf in paths:
    path = [key.key for key in path]
    leaves[_adm_name(path, abstract)] = path, leaf.shape

  strangers = [n for n in leaves if n not in tensors] + [n for n in tensors if n not in leaves]
  if strangers:
    kind = 'unexpected' if strangers[0] in tensors else 'missing'
    raise UserError(f'tensor {strangers[0]} is {kind} in a class-conditional ADM network.')
  for name, (path, shape) in leaves.items():
    if tensors[name].shape != (expected := _adm_shape(path, shape)):
      raise UserError(f'tensor {name} has shape {tensors[name].shape}, not {expected}.')

  converted = [
    _convert(tensors[name], path, network, heads_first) for name, (path, _) in leaves.items()
  ]
  return jax.tree.unflatten(tree, converted)


def _adm_name(path: list, params: dict[str, Any]) -> str:
  """The tensor's name in the files, of our path such as ['up', 3, 'last', 'emb', 'kernel']."""
  *layers, leaf = path
  leaf = 'bias' if leaf == 'bias' else 'weight'
  if len(layers) == 1:
    return f'{OUTER[layers[0]]}.{leaf}'
  if layers[0] == 'middle':
    _, part, layer = layers
    stage, blocks = params['middle'], 'middle_block'
  else:
    side, i, part, layer = layers
    stage = params[side][i]
    # The way down starts with the first convolution.
    blocks = f'input_blocks.{i + 1}' if side == 'down' else f'output_blocks.{i}'
  position = [p for p in ('first', 'attention', 'last') if p in stage].index(part)
  return f'{blocks}.{position}.{PARTS[layer]}.{leaf}'


def _adm_shape(path: list, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape that the tensor at our path has in the files."""
  *_, layer, leaf = path
  if path[0] == 'class_emb':
    return (shape[0] - 1, shape[1])  # no ∅
  if path[0] == 'conv_out':
    shape = (*shape[:-1], 2 * shape[-1])  # ε and the variance
  if leaf == 'kernel':  # (…, in, out) → (out, in, …)
    shape = (*shape[:-3:-1], *shape[:-2])
  return (*shape, 1) if layer in ('qkv', 'proj') and leaf == 'kernel' else shape


def _convert(
  tensor: np.ndarray, path: list, network: unet.UNetConfig, heads_first: bool
) -> np.ndarray:
  """Our parameter at path from ADM's tensor."""
  *_, layer, leaf = path
  tensor = tensor.astype(np.float32, copy=False)
  if path[0] == 'class_emb':
    return np.concatenate([tensor, tensor.mean(0, keepdims=True)])
  if path[0] == 'conv_out':
    tensor = tensor[: network.image_shape[2]]
  if layer in ('qkv', 'proj') and leaf == 'kernel':
    tensor = tensor[..., 0]  # a convolution of size 1
  if layer == 'qkv' and heads_first:
    c = len(tensor) // 3
    heads = network.num_heads or c // network.head_channels
    by_head = tensor.reshape(heads, 3, c // heads, *tensor.shape[1:])
    tensor = by_head.swapaxes(0, 1).reshape(tensor.shape)
  if leaf == 'kernel':  # (out, in, …) → (…, in, out)
    tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
  return tensor


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  runtime.setup_jax(1)
  workdir, config = flags.FLAGS.workdir, command.config_of_file()
  import_run(config, Path(flags.FLAGS.weights), Path(workdir))
  other = {'bfloat16': 'float32', 'float32': 'bfloat16'}[config.model.dtype]
  print(
    f'The run computes in {config.model.dtype}, with float32 weights, norms and softmax (ε differs '
    f'by about a hundredth between bfloat16 and float32). For {other}, import it again with '
    f'--set model.dtype={other}.'
  )
  print(f'Sample it: python -m cfg_jax.generate --workdir {workdir} --num_samples 16')


def define_flags() -> None:
  """The command's flags."""
  command.define_config_flags()
  flags.DEFINE_string('workdir', None, 'Folder that is to hold the run.', required=True)
  flags.DEFINE_string('weights', None, 'The .pt file.', required=True)


if __name__ == '__main__':
  define_flags()
  command.run(main)
