"""Where guided-diffusion's files have our parameters, and in which layout.

Both of its networks, the U-Net and the classifier, have the same blocks by the same names. What
differs from ours: dense layers over positions are convolutions of size 1 there; each weight has its
outputs first; and the qkv of a block's attention may give q, k and v of the first head, then of the
next (`heads_first`), where ours gives all of q first. The classifier's attention pool is as ours in
every file, whatever its blocks are.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from cfg_jax.core.errors import UserError
from cfg_jax.nets import encoder, unet

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
# Of a classifier's head, by `pool`: its layers' names, and how many dimensions of size 1 their
# weights end in.
HEADS = {
  'attention': {'norm': 'out.0', 'qkv': 'out.2.qkv_proj', 'proj': 'out.2.c_proj'},
  'adaptive': {'norm': 'out.0', 'proj': 'out.3'},
  'spatial': {'hidden': 'out.0', 'proj': 'out.2'},
}
ONES = {'attention': 1, 'adaptive': 2, 'spatial': 0}

Network = unet.UNetConfig | encoder.EncoderConfig


class Place(NamedTuple):
  """A tensor's name, the dimensions of size 1 that it ends in, and the heads that it is sorted by.

  heads: None where q, k and v follow each other as ours do.
  """

  name: str
  ones: int = 0
  heads: int | None = None


def convert(tensors: dict[str, np.ndarray], network: Network, heads_first: bool) -> dict[str, Any]:
  """Our parameters, float32, from ADM's tensors by name, which are those of a state dictionary.

  Takes a U-Net with 6 outputs (for 3 channels) and no ∅, or a classifier; heads_first: of the
  blocks' attention, see above. Raises UserError that names the first of the tensors that are
  missing and of those that are unexpected, or one that has another shape.
  """
  classifies = isinstance(network, encoder.EncoderConfig)
  create = encoder.create_params if classifies else unet.create_params
  abstract = jax.eval_shape(lambda: create(network, 0))
  paths, tree = jax.tree_util.tree_flatten_with_path(abstract)
  leaves = {}  # by ADM's name: our path and shape, and what is particular there
  for path, leaf in paths:
    path = [key.key for key in path]
    place = _place(path, leaf.shape, abstract, network, heads_first)
    leaves[place.name] = path, leaf.shape, place

  lines = [
    _named(names, kind)
    for names, kind in (
      ([n for n in leaves if n not in tensors], 'missing'),
      ([n for n in tensors if n not in leaves], 'unexpected'),
    )
    if names
  ]
  if lines:
    what = "ADM's classifier" if classifies else 'a class-conditional ADM network'
    raise UserError(f'{", ".join(lines)} in {what}.')
  for name, (path, shape, place) in leaves.items():
    if tensors[name].shape != (expected := _adm_shape(path, shape, place)):
      raise UserError(f'tensor {name} has shape {tensors[name].shape}, not {expected}.')

  converted = [
    _convert(tensors[name], path, shape, place) for name, (path, shape, place) in leaves.items()
  ]
  return jax.tree.unflatten(tree, converted)


def _named(names, kind):
  others = f' and {len(names) - 1} more are' if len(names) > 1 else ' is'
  return f'tensor {names[0]}{others} {kind}'


def _place(path, shape, params, network, heads_first) -> Place:
  """Of our path such as ['up', 3, 'last', 'emb', 'kernel'], in a network of these parameters."""
  *layers, leaf = path
  leaf = 'bias' if leaf == 'bias' else 'weight'
  if layers == ['head']:
    return Place('out.2.positional_embedding')
  if layers[0] == 'head':
    ones = ONES[network.pool] if path[-1] == 'kernel' else 0
    return Place(f'{HEADS[network.pool][layers[1]]}.{leaf}', ones)
  if len(layers) == 1:
    return Place(f'{OUTER[layers[0]]}.{leaf}')
  if layers[0] == 'middle':
    _, part, layer = layers
    stage, blocks = params['middle'], 'middle_block'
  else:
    side, i, part, layer = layers
    stage = params[side][i]
    # The way down starts with the first convolution.
    blocks = f'input_blocks.{i + 1}' if side == 'down' else f'output_blocks.{i}'
  position = [p for p in ('first', 'attention', 'last') if p in stage].index(part)
  name = f'{blocks}.{position}.{PARTS[layer]}.{leaf}'
  ones = 1 if layer in ('qkv', 'proj') and path[-1] == 'kernel' else 0
  if layer != 'qkv' or not heads_first:
    return Place(name, ones)
  return Place(name, ones, network.num_heads or shape[-1] // 3 // network.head_channels)


def _adm_shape(path, shape, place) -> tuple[int, ...]:
  """The shape that the tensor of our path and shape has in the files."""
  if path[0] == 'class_emb':
    return (shape[0] - 1, shape[1])  # no ∅
  if path[-1] == 'positions':
    return shape[::-1]
  if path[0] == 'conv_out':
    shape = (*shape[:-1], 2 * shape[-1])  # ε and the variance
  if path[-1] == 'kernel':  # (…, in, out) → (out, in, …)
    shape = (*shape[:-3:-1], *shape[:-2])
  return (*shape, *[1] * place.ones)


def _convert(tensor, path, shape, place) -> np.ndarray:
  """Our parameter of path and shape, from ADM's tensor."""
  tensor = tensor.astype(np.float32, copy=False)
  if path[0] == 'class_emb':
    return np.concatenate([tensor, tensor.mean(0, keepdims=True)])
  if path[-1] == 'positions':
    return tensor.T
  if path[0] == 'conv_out':
    tensor = tensor[: shape[-1]]
  tensor = tensor.reshape(tensor.shape[: tensor.ndim - place.ones])
  if place.heads is not None:
    by_head = tensor.reshape(place.heads, 3, -1, *tensor.shape[1:])
    tensor = by_head.swapaxes(0, 1).reshape(tensor.shape)
  if path[-1] == 'kernel':  # (out, in, …) → (…, in, out)
    tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
  return tensor
