"""Configs: of a run on disk, changed by FIELD=VALUE, checked, recorded and compared.

A config names its parts (`method.name`, `sample.sampler.name`, …). What a section may say is known
to its owner alone, a function

    problems(section, context) -> Iterator[(field, remedy)]

and each stage lists the owners of the sections that it reads in its `OWNERS`.
"""

import difflib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from cfg_jax.core import fields, files
from cfg_jax.core.errors import UserError
from cfg_jax.core.versions import SEALED, migrate

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
# By the section, what it becomes once it names other parts, such as another solver: a function of a
# dict. The stage that knows the parts sets it, since core may not import that.
FIT: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
# Fields that configs may leave out, by their dotted names, with what that means. Their owners add
# them; a config has them only where somebody set them.
OPTIONAL: dict[str, Any] = {}
SEED = fields.Field(int, 0, 2**32 - 1, 'must be a whole number from 0 to 2^32 − 1')
PACKAGES = ('cfg_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


class Context(NamedTuple):
  """What an owner may ask beside its own section."""

  config: ml_collections.ConfigDict
  num_devices: int  # JAX devices of all processes, over which batches are split


Problems = Iterator[tuple[str, str]]  # (field of the section, what is wrong and the remedy)
Owner = Callable[[ml_collections.ConfigDict, Context], Problems]


def of_run(workdir: str | Path) -> ml_collections.ConfigDict:
  """The config that a run recorded, locked; UserError where there is no run."""
  path = Path(workdir) / 'config.json'
  if not path.exists():
    raise UserError(f'--workdir={workdir} holds no run (no config.json): train one first.')
  return read(path)


def read(path: Path) -> ml_collections.ConfigDict:
  """The config that a JSON file of ours records, locked; UserError where the file is damaged."""
  return of_dict(read_record(path)['config'], str(path))


def read_record(path: Path) -> dict[str, Any]:
  """All that a JSON file with a config records; UserError, with the remedy, where it is damaged."""
  record = files.read_json(path)
  try:
    if not isinstance(record, dict) or not isinstance(record.get('config'), dict):
      raise ValueError('it holds no config')
    version = record['config'].get('version', 1)
    return files.unseal(record, must=version not in range(1, SEALED))
  except ValueError as error:
    raise UserError(
      f'{path} is damaged ({error}): restore it, or remove it and give the --config that it was '
      'made with.'
    ) from None


def of_dict(resolved: dict[str, Any], where: str) -> ml_collections.ConfigDict:
  """The config, of any version, that JSON holds; where: what is named if it is none. Locked."""
  return _locked(migrate(resolved, where))


def change(config: ml_collections.ConfigDict, texts: Iterable[str]) -> ml_collections.ConfigDict:
  """A copy of config with fields set by texts FIELD=VALUE, in order; locked.

  Values are of the field's type in config; a list is separated by commas. Raises UserError where
  there is no such field, or the value is of another type.
  """
  config = config.copy_and_resolve_references().unlock()
  for text in texts:
    field, equals, value = text.partition('=')
    if not equals:
      raise UserError(f'--set {text} must be FIELD=VALUE, such as --set seed=1.')
    bring(config, field)
    assign(config, field, parse(value, get(config, field), field))
  return config.lock()


def bring(config: ml_collections.ConfigDict, field: str) -> None:
  """Gives an unlocked config a dotted field that it may leave out, if it does, by its default."""
  if field not in flat(config.to_dict()):
    _fit(config, field)
    section, _, name = field.rpartition('.')
    if field in OPTIONAL and section in config:
      config[section][name] = OPTIONAL[field]


def assign(config: ml_collections.ConfigDict, field: str, value: Any) -> None:
  """Sets a dotted field of an unlocked config; where that names another part, its knobs follow."""
  section, name = _find(config, field)
  other = isinstance(value, str) and value != section[name]
  with section.ignore_type():  # which numbers will do is known to the section's owner
    section[name] = value
  if other:
    _fit(config, field)


def _fit(config, field):
  """Gives the section of field the knobs of the parts that it names, and of no others."""
  path = field.rpartition('.')[0]
  if path in FIT:
    section = config
    for name in path.split('.'):
      section = section.get(name, ml_collections.ConfigDict())
    fitted = FIT[path](section.to_dict())
    for name in set(section) - set(fitted):
      del section[name]
    section.update(fitted)


def get(config: ml_collections.ConfigDict, field: str) -> Any:
  """The value of a dotted field; UserError, with the nearest name, where there is no such field."""
  section, name = _find(config, field)
  return section[name]


def _find(config, field):
  section, path = config, field.split('.')
  for depth, name in enumerate(path):
    last = depth == len(path) - 1
    inside = isinstance(section, ml_collections.ConfigDict) and name in section
    if not inside or isinstance(section[name], ml_collections.ConfigDict) == last:
      known = flat(config.to_dict())
      near = difflib.get_close_matches(field, known, 1)
      by_last = [f for f in known if f.endswith(f'.{path[-1]}')]
      hint = f' Did you mean {(near or by_last)[0]}?' if near or by_last else ''
      raise UserError(f'{field}: the config has no such field.{hint}')
    if last:
      return section, name
    section = section[name]


def parse(text: str, like: Any, field: str) -> Any:
  """The value that text stands for, of the type of `like`; UserError, naming field, if it is none.

  Lists take the type of their first element. A field that is None so far takes a number or text,
  and a whole number may become another: which will do is known to the section's owner.
  """
  try:
    if not isinstance(like, tuple | list):
      return _value(text, like)
    items = [item.strip() for item in text.strip().strip('()[]').split(',')]
    return tuple(_value(item, like[0] if like else None) for item in items if item)
  except ValueError as error:
    raise UserError(f'{field}={text}: {error}.') from None


def _value(text, like):
  if isinstance(like, str):
    return text
  if like is None:
    try:
      return None if text.lower() == 'none' else json.loads(text)
    except ValueError:
      return text
  kind = type(like) if type(like) in fields.KINDS else float
  try:
    if kind is bool:
      return {'true': True, 'false': False}[text.lower()]
    return int(text) if kind is int and text.strip().lstrip('+-').isdecimal() else float(text)
  except (KeyError, ValueError):
    raise ValueError(f'{text!r} is not {fields.KINDS[kind]}') from None


def check(config: ml_collections.ConfigDict, owners: Mapping[str, Owner], num_devices: int) -> None:
  """Raises one UserError that lists every problem of the owners' sections, one line each."""
  context, lines, stumbled = Context(config, num_devices), [], None
  if not SEED.takes(seed := config.get('seed')):
    lines.append(f'seed={seed!r} {SEED.remedy}.')
  for name, owner in owners.items():
    if not isinstance(config.get(name), ml_collections.ConfigDict):
      lines.append(f'{name}: the config lacks this section; see configs/digits.py.')
      continue
    try:
      for field, remedy in owner(config[name], context):
        value = flat(config.to_dict()).get(f'{name}.{field}', '(none)')
        lines.append(f'{name}.{field}={value!r} {remedy}.')
    except Exception as error:  # an owner may stumble over another section's mistake
      stumbled = error
  if lines:
    raise UserError('\n'.join(lines))
  if stumbled:
    raise stumbled


def record(config: ml_collections.ConfigDict, workdir: Path) -> None:
  """Writes workdir/config.json, or compares config with the one on disk.

  Raises UserError with the difference where a resumed run has changed anything but `MAY_CHANGE`,
  and where several processes differ in config or do not see the same work directory.
  """
  from cfg_jax.core import processes  # here: it brings JAX, which readers of configs do without

  path = Path(workdir) / 'config.json'
  check_unchanged(config, path)
  resolved = json.loads(config.to_json())
  processes.check_equal(json.dumps(resolved), '--config')
  versions = {name: importlib.metadata.version(name) for name in PACKAGES}
  if processes.is_first():
    files.write_json(path, files.seal({'config': resolved, 'versions': versions}))
  processes.barrier('config.json is written')
  seen = path.read_text() if path.exists() else ''
  processes.check_equal(seen, f'{path}, which must be on a file system that all share,')


def check_unchanged(
  config: ml_collections.ConfigDict, path: Path, may_change: tuple[str, ...] = MAY_CHANGE
) -> None:
  """Raises UserError, with the difference, where the file at path records another config.

  may_change: fields, or whole sections, that may differ.
  """
  if not path.exists():
    return
  now, before = (flat(_lists(c.to_dict())) for c in (config, read(path)))
  changed = [
    f'  {key}: {before.get(key, "(absent)")!r} → {now.get(key, "(absent)")!r}'
    for key in sorted(before.keys() | now.keys())
    if before.get(key) != now.get(key)
    and not any(key == name or key.startswith(f'{name}.') for name in may_change)
  ]
  if changed:
    raise UserError(
      f'{path.parent} was made by another config; use a new --workdir, or undo:\n'
      + '\n'.join(changed)
    )


def flat(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Nested dicts as one, by dotted names."""
  items = {}
  for key, value in tree.items():
    items |= flat(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {prefix + key: value}
  return items


def _locked(resolved: dict) -> ml_collections.ConfigDict:
  """A config of plain dicts, lists being tuples."""
  return ml_collections.ConfigDict(_tuples(resolved), convert_dict=True).lock()


def _tuples(tree: Any) -> Any:
  """JSON has no tuples: its lists become tuples again."""
  if isinstance(tree, dict):
    return {key: _tuples(value) for key, value in tree.items()}
  return tuple(tree) if isinstance(tree, list) else tree


def _lists(tree: Any) -> Any:
  if isinstance(tree, dict):
    return {key: _lists(value) for key, value in tree.items()}
  return list(tree) if isinstance(tree, tuple) else tree
