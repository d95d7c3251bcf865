"""OpenAI's published ADM networks → a run that `generate` can sample.

  python -m cfg_jax.adm --weights 64x64_diffusion.pt --workdir runs/adm64
  python -m cfg_jax.generate --workdir runs/adm64 --num_samples 16

Takes the class-conditional `64x64_diffusion.pt` and `128x128_diffusion.pt` of Dhariwal & Nichol
(2021), whose network is ours but for three things:

- It was trained on 1000 discrete times. `model.lambda_embedding` maps λ to them, and λ_min and
  λ_max are the ends of its schedule.
- Its last three outputs, for the variance, are dropped: Algorithm 2 has a variance of its own. So
  samples come from the same ε as ADM's, not from the same sampler.
- It has no ∅. Our row for ∅ is the mean of the classes' rows: nobody trained it, the config says so
  with train.p_uncond = 0, and `generate` therefore draws with w = 0 only.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cfg_jax import cli, sharding, torch_file, train_state, unet
from cfg_jax import config as config_lib
from cfg_jax.checkpoint import Checkpoints
from cfg_jax.embedding import adm_lambdas

# ADM's appendix (architecture, training) and the flags published with the files; `sample.v` and its
# clipping are Section 4 of our paper and its authors' code, T is what ADM's own tables have.
COMMON = {
  'seed': 0,
  'data': {'dir': '~/tensorflow_datasets', 'flip': True},
  'model': {
    'attention_resolutions': (32, 16, 8),
    'norm_groups': 32,
    'dtype': 'float32',
    'remat': False,
  },
  'train': {
    'p_uncond': 0.0,
    'warmup_steps': 0,
    'adam_b1': 0.9,
    'adam_b2': 0.999,
    'grad_clip': float('inf'),
    'ema_decay': 0.9999,
    'log_every': 100,
    'checkpoint_every': 10_000,
    'keep_checkpoints': 1,
  },
  'sample': {
    'w': (0.0,),
    'num_steps': 250,
    'clip_x': True,
    'num_samples': 50_000,
    'batch_size': 16,
    'labels': 'random',
    'ema': True,
    'seed': 0,
  },
  'evaluate': {'extractor': 'inception'},
}
PUBLISHED = {
  '64x64_diffusion.pt': {
    'data': {'name': 'imagenet64'},
    'model': {
      'channels': 192,
      'channel_mults': (1, 2, 3, 4),
      'num_blocks': 3,
      'head_channels': 64,
      'num_heads': None,
      'dropout': 0.1,
      'lambda_embedding': 'adm_cosine',
    },
    'train': {'batch_size': 2048, 'num_steps': 540_000, 'learning_rate': 3e-4},
    'sample': {'v': 0.3},
  },
  '128x128_diffusion.pt': {
    'data': {'name': 'imagenet128'},
    'model': {
      'channels': 256,
      'channel_mults': (1, 1, 2, 3, 4),
      'num_blocks': 2,
      'head_channels': None,
      'num_heads': 4,
      'dropout': 0.0,
      'lambda_embedding': 'adm_linear',
    },
    'train': {'batch_size': 256, 'num_steps': 4_360_000, 'learning_rate': 1e-4},
    'sample': {'v': 0.2},
  },
}
# Attention's qkv gives q, k and v of the first head, then of the second, and so on. In the newer
# order, the other file's and ours, all heads' q come first, then k, then v.
HEADS_FIRST = {'128x128_diffusion.pt'}

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


def published(name: str) -> ConfigDict:
  """The config of one of the `PUBLISHED` networks, with its training as ADM tells it."""
  config = ConfigDict(COMMON)
  config.update(PUBLISHED[name])
  config.diffusion = adm_diffusion(config.model.lambda_embedding)
  return config.lock()


def adm_diffusion(lambda_embedding: str) -> ConfigDict:
  """λ_min and λ_max, the ends of ADM's schedule."""
  lam = adm_lambdas(lambda_embedding)
  return ConfigDict({'lambda_min': float(lam[-1]), 'lambda_max': float(lam[0])})


def recognize(tensors: dict[str, np.ndarray]) -> str:
  """Which of the `PUBLISHED` files has a first layer of this width; ValueError if none has."""
  name = 'time_embed.0.weight'
  if name not in tensors:
    raise ValueError(f'it has no tensor {name}, so it is no network of ADM.')
  widths = {p['model']['channels']: file for file, p in PUBLISHED.items()}
  if (shape := tensors[name].shape) not in [(4 * width, width) for width in widths]:
    known = ' nor '.join(f'{(4 * width, width)} of {file}' for width, file in widths.items())
    raise ValueError(f'{name} has shape {shape}, neither {known}.')
  return widths[shape[1]]


def convert(
  tensors: dict[str, np.ndarray], network: unet.UNetConfig, heads_first: bool
) -> dict[str, Any]:
  """Our parameters, float32, from ADM's tensors by name, which are those of a state dictionary.

  Takes a network with 6 outputs (for 3 channels) and no ∅; heads_first: see `HEADS_FIRST`. Raises
  ValueError that names the first tensor that is missing, unexpected, or of another shape.
  """
  abstract = jax.eval_shape(lambda: train_state.create_params(network, 0))
  paths, tree = jax.tree_util.tree_flatten_with_path(abstract)
  leaves = {}  # by ADM's name: our path and shape
  for path, leaf in paths:
    path = [key.key for key in path]
    leaves[_adm_name(path, abstract)] = path, leaf.shape

  strangers = [n for n in leaves if n not in tensors] + [n for n in tensors if n not in leaves]
  if strangers:
    kind = 'unexpected' if strangers[0] in tensors else 'missing'
    raise ValueError(f'tensor {strangers[0]} is {kind} in a class-conditional ADM network.')
  for name, (path, shape) in leaves.items():
    if tensors[name].shape != (expected := _adm_shape(path, shape)):
      raise ValueError(f'tensor {name} has shape {tensors[name].shape}, not {expected}.')

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


def write_run(
  tensors: dict[str, np.ndarray], config: ConfigDict, heads_first: bool, workdir: Path, source: dict
) -> None:
  """A run directory of the converted tensors: one checkpoint, of the EMA only, and config.json.

  source: what the checkpoint's record says of where it is from. Raises ValueError where the
  tensors are not the network's, or workdir is not empty.
  """
  workdir = Path(workdir)
  if workdir.exists() and any(workdir.iterdir()):
    raise ValueError(f'--workdir={workdir} is not empty: name a new one.')
  ema = convert(tensors, config_lib.network_of(config), heads_first)
  step = config.train.num_steps
  checkpoints = Checkpoints(workdir, keep=1)
  checkpoints.save(step, {'step': jnp.int32(step), 'ema': ema}, source)
  checkpoints.close()
  config_lib.record(config, workdir)  # last: without it there is no run


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  weights, workdir = Path(flags.FLAGS.weights), Path(flags.FLAGS.workdir)
  sharding.setup_jax(1)
  tensors = torch_file.read(weights)
  try:
    name = recognize(tensors)
    source = {'adm': name, 'sha256': torch_file.sha256(weights)}
    write_run(tensors, published(name), name in HEADS_FIRST, workdir, source)
  except ValueError as error:
    raise ValueError(f'{weights} : {error}') from None
  print(f'{workdir} holds {name}: sample it with python -m cfg_jax.generate --workdir {workdir}')


if __name__ == '__main__':
  flags.DEFINE_string('weights', None, 'The .pt file.', required=True)
  flags.DEFINE_string('workdir', None, 'The folder to make.', required=True)
  cli.run(main)
