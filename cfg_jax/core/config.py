"""What a config may say, and what is wrong with one: every problem at once, in the user's words."""

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from cfg_jax.core import processes
from cfg_jax.data import registry as datasets
from cfg_jax.evaluate.extractors import EXTRACTORS
from cfg_jax.nets import embed as embedding
from cfg_jax.nets import unet

# A resumed run may change these: they decide nothing that a checkpoint holds. (`sample` and
# `evaluate` are part of what samples and evaluations are called on disk.)
MAY_CHANGE = (
  'data.dir',
  'train.num_steps',
  'train.log_every',
  'train.checkpoint_every',
  'train.keep_checkpoints',
  'train.sample_every',
  'train.microbatches',  # but for rounding
  'train.shard_optimizer',  # but for rounding
  'sample',
  'evaluate',
)
# Fields of `train` that older runs do not have, and what they did.
ADDED = {'microbatches': 1, 'shard_optimizer': False, 'sample_every': 0}
PACKAGES = ('cfg_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


def define_flags() -> None:
  """--config, a file whose every field is a flag (--config.train.p_uncond=0.2), and --workdir."""
  config_flags.DEFINE_config_file('config', help_string='Config file.', lock_config=True)
  flags.DEFINE_string('workdir', None, 'Folder that holds all of the work.')
  flags.mark_flag_as_required('config')


def of_flags() -> ml_collections.ConfigDict:
  """The config that --config names; ValueError where that file cannot be read."""
  try:
    flags.FLAGS.config.seed  # noqa: B018  # now it is opened
  except OSError:
    file = flags.FLAGS['config'].config_filename
    raise ValueError(f'--config={file} cannot be read; the configs are in configs/.') from None
  return flags.FLAGS.config


def validate(config: ml_collections.ConfigDict, num_devices: int) -> None:
  """Raises one ValueError that lists every problem, one line each; touches no file but the data's.

  num_devices: JAX devices of all processes, over which both batch sizes are split.
  """
  problems = []

  def check(holds: bool, field: str, remedy: str) -> None:
    value = config
    for part in field.split('.'):
      value = value[part]
    if not holds:
      problems.append(f'{field}={value!r} {remedy}.')

  model, diffusion, train, sampler = config.model, config.diffusion, config.train, config.sample
  check(
    diffusion.lambda_min < diffusion.lambda_max,
    'diffusion.lambda_min',
    f'must be less than diffusion.lambda_max={diffusion.lambda_max}; the paper has -20 and 20',
  )

  check(
    0 <= train.p_uncond <= 1,
    'train.p_uncond',
    'is a probability: use 0 to 1; the paper has 0.1, 0.2, 0.5',
  )
  positive = ('num_steps', 'batch_size', 'microbatches', 'log_every', 'checkpoint_every')
  for field in (*positive, 'keep_checkpoints'):
    check(train[field] >= 1, f'train.{field}', 'must be at least 1')
  check(train.sample_every >= 0, 'train.sample_every', 'must be at least 0, which is never')
  check(train.warmup_steps >= 0, 'train.warmup_steps', 'must be at least 0')
  check(train.learning_rate > 0, 'train.learning_rate', 'must be positive')
  check(train.grad_clip > 0, 'train.grad_clip', 'must be positive; inf does not clip')
  for field in ('adam_b1', 'adam_b2', 'ema_decay'):
    check(0 <= train[field] < 1, f'train.{field}', 'must be in [0, 1)')

  check(0 <= sampler.v <= 1, 'sample.v', 'must be in [0, 1]; the paper has 0.3 and 0.2')
  check(
    sampler.num_steps >= 2, 'sample.num_steps', 'must be at least 2: the grid of λ has two ends'
  )
  check(sampler.num_samples >= 1, 'sample.num_samples', 'must be at least 1')
  check(sampler.batch_size >= 1, 'sample.batch_size', 'must be at least 1')
  check(len(sampler.w) > 0, 'sample.w', 'must name at least one guidance strength')
  check(len(set(sampler.w)) == len(sampler.w), 'sample.w', 'names a guidance strength twice')
  for group in ('train', 'sample'):
    size = config[group].batch_size
    if size >= 1 and size % num_devices:
      nearest = max(num_devices, round(size / num_devices) * num_devices)
      check(
        False, f'{group}.batch_size', f'must be a multiple of {num_devices} devices; try {nearest}'
      )
    elif group == 'train' and train.microbatches >= 1:
      each = size // num_devices
      fits = [n for n in range(1, train.microbatches + 1) if each % n == 0]
      check(
        each % train.microbatches == 0,
        'train.microbatches',
        f'must divide the {each} images of a device; try {fits[-1]}',
      )

  check(
    config.evaluate.extractor in EXTRACTORS,
    'evaluate.extractor',
    f'must be {" or ".join(map(repr, EXTRACTORS))}',
  )

  try:
    dataset = dataset_of(config)
  except ValueError as error:
    problems.append(str(error))
  else:
    size = dataset.image_shape[0]
    resolutions = [size // 2**level for level in range(len(model.channel_mults))]
    check(
      size % 2 ** (len(model.channel_mults) - 1) == 0,
      'model.channel_mults',
      f'halves {size} pixels {len(model.channel_mults) - 1} times; use fewer levels',
    )
    never = [r for r in model.attention_resolutions if r not in resolutions]
    check(
      not never,
      'model.attention_resolutions',
      f'has {never}, which never occur: the levels are {resolutions}',
    )
    labels = sampler.labels
    check(
      labels in ('balanced', 'random') or labels.isdigit() and int(labels) < dataset.num_classes,
      'sample.labels',
      f"must be 'balanced', 'random' or one class, '0' to '{dataset.num_classes - 1}'",
    )

  widths = [model.channels * mult for mult in model.channel_mults]
  check(len(widths) > 0, 'model.channel_mults', 'must have one multiplier a level')
  check(model.num_blocks >= 1, 'model.num_blocks', 'must be at least 1')
  check(0 <= model.dropout < 1, 'model.dropout', 'must be in [0, 1)')
  check(model.dtype in ('float32', 'bfloat16'), 'model.dtype', "must be 'float32' or 'bfloat16'")
  bad = [width for width in widths if width % model.norm_groups]
  check(
    not bad,
    'model.channels',
    f'× channel_mults gives {bad}, not divisible by model.norm_groups={model.norm_groups}',
  )
  check(
    model.channels % 2 == 0,
    'model.channels',
    'must be even: the embedding of λ has sines and cosines',
  )
  if 'lambda_embedding' in model:
    check(
      model.lambda_embedding in embedding.EMBEDDINGS,
      'model.lambda_embedding',
      f'must be one of {", ".join(embedding.EMBEDDINGS)}',
    )
  heads, head_channels = model.num_heads, model.head_channels
  if (heads is None) == (head_channels is None):
    check(False, 'model.num_heads', f'and model.head_channels={head_channels}: give exactly one')
  else:
    bad = [width for width in widths if width % (heads or head_channels)]
    check(
      not bad,
      'model.num_heads' if heads else 'model.head_channels',
      f'does not divide the widths {bad}',
    )

  if problems:
    raise ValueError('\n'.join(problems))


def dataset_of(config: ml_collections.ConfigDict) -> datasets.Dataset:
  """The config's data set; ValueError if there is none of that name."""
  return datasets.get(config.data.name, Path(config.data.dir).expanduser())


def network_of(config: ml_collections.ConfigDict) -> unet.UNetConfig:
  """The config's network."""
  dataset = dataset_of(config)
  return unet.UNetConfig(
    image_shape=dataset.image_shape, num_classes=dataset.num_classes, **config.model
  )


def record(config: ml_collections.ConfigDict, workdir: Path) -> None:
  """Writes workdir/config.json, or holds the one that is there against config.

  Raises ValueError with the difference where a resumed run has changed anything but `MAY_CHANGE`,
  and where several processes differ in config or do not see the same work directory.
  """
  path = Path(workdir) / 'config.json'
  hold_against(config, path)
  resolved = json.loads(config.to_json())
  processes.agree(json.dumps(resolved), '--config')
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
  if processes.is_first():
    write_atomically(path, json.dumps({'config': resolved, 'versions': versions}, indent=2) + '\n')
  processes.wait('config.json is written')
  seen = path.read_text() if path.exists() else ''
  processes.agree(seen, f'{path}, which must be on a file system that all share,')


def hold_against(
  config: ml_collections.ConfigDict, path: Path, may_change: tuple[str, ...] = MAY_CHANGE
) -> None:
  """Raises ValueError, with the difference, where the file at path records another config."""
  if not path.exists():
    return
  now = flat(json.loads(config.to_json()))  # tuples become lists, as they are on disk
  before = flat(json.loads(path.read_text())['config'])
  changed = [
    f'  {key}: {before.get(key, "(absent)")!r} → {now.get(key, "(absent)")!r}'
    for key in sorted(before.keys() | now.keys())
    if before.get(key) != now.get(key) and not key.startswith(may_change)
  ]
  if changed:
    raise ValueError(
      f'{path.parent} was made by another config; use a new --workdir, or undo:\n'
      + '\n'.join(changed)
    )


def of_run(workdir: Path) -> ml_collections.ConfigDict:
  """The config that a run recorded; ValueError where there is no run."""
  path = Path(workdir) / 'config.json'
  if not path.exists():
    raise ValueError(f'--workdir={workdir} holds no run (no config.json): train one first.')
  return read(path)


def read(path: Path) -> ml_collections.ConfigDict:
  """The config that a file records, locked."""
  resolved = _tuples(json.loads(path.read_text())['config'])
  for name, value in ADDED.items():
    resolved['train'].setdefault(name, value)
  return ml_collections.ConfigDict(resolved, convert_dict=True).lock()


def write_atomically(path: Path, text: str) -> None:
  """Writes the whole file or nothing, however the process ends."""
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + '.part')
  part.write_text(text)
  os.replace(part, path)


def _tuples(tree: Any) -> Any:
  """JSON has no tuples: its lists become tuples again."""
  if isinstance(tree, dict):
    return {key: _tuples(value) for key, value in tree.items()}
  return tuple(tree) if isinstance(tree, list) else tree


def flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """Nested dicts as one, by dotted names."""
  items = {}
  for key, value in tree.items():
    items |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
  return items
