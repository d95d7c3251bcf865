"""The networks that a config, or --extractor, may name. Each is imported when it is asked for.

One's own is named MODULE:CLASS, such as --extractor=my_network:Extractor: a class made without
arguments that is a `features.Extractor`. Its distance is then called FD-<name>. Any other name is
the folder of a classifier's run, see `of_run`, whose distance is called FD-<its data set>.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import ml_collections

from cfg_jax.core import config as config_lib
from cfg_jax.core import fields, files
from cfg_jax.core.config import Context, Problems
from cfg_jax.core.errors import UserError
from cfg_jax.core.fields import Field
from cfg_jax.evaluate.extractors import weights
from cfg_jax.evaluate.features import Extractor

# A field that configs may leave out: whether metrics are computed as ADM's evaluator does.
config_lib.OPTIONAL['evaluate.as_adm'] = False
ATTRIBUTES = ('name', 'sha256', 'dim', 'resize', 'is_public', 'labels_of')  # of an `Extractor`


def _digits() -> Extractor:
  from cfg_jax.evaluate.extractors.digits import DigitsExtractor

  return DigitsExtractor()


def _inception(**options) -> Extractor:
  from cfg_jax.evaluate.extractors.inception import Inception

  return Inception(**options)


EXTRACTORS: dict[str, Callable[..., Extractor]] = {'digits': _digits, 'inception': _inception}


def make(name: str, **options) -> Extractor:
  """The extractor that `name` names: one of EXTRACTORS, MODULE:CLASS, or a classifier's run.

  options: of one in EXTRACTORS. Raises UserError where there is none, or it lacks something.
  """
  if name in EXTRACTORS:
    return EXTRACTORS[name](**options)
  if _is_class(name):
    return _own(name)
  if _is_no_folder(name):
    raise UserError(
      f'--extractor={name} is none of {", ".join(EXTRACTORS)}; name one of your own MODULE:CLASS, '
      "or the folder of a classifier's run."
    )
  from cfg_jax.evaluate.extractors import of_run

  if wrong := of_run.problem(files.expand(name)):
    raise UserError(f'--extractor={name} {wrong}.')
  return of_run.OfRun(files.expand(name))


def _is_class(name: str) -> bool:
  return ':' in name and '/' not in name


def _is_no_folder(name: str) -> bool:
  """Whether a name is a single word, and no file or folder is called so."""
  return '/' not in name and not files.expand(name).exists()


def _own(name: str) -> Extractor:
  module, _, attribute = name.partition(':')
  try:
    made = getattr(importlib.import_module(module), attribute)()
  except (ImportError, AttributeError, ValueError, TypeError) as error:
    raise UserError(f'--extractor={name} cannot be made: {error}.') from None
  lacking = [a for a in ATTRIBUTES if not hasattr(made, a)] + ['__call__'] * (not callable(made))
  if lacking:
    raise UserError(f'--extractor={name} lacks {", ".join(lacking)}: see features.Extractor.')
  if made.is_public:
    raise UserError(f"--extractor={name}: is_public must be False, FID is of Inception's features.")
  return made


def has_measured(name: str, line: Mapping[str, Any]) -> bool:
  """Whether the extractor that `name` names has made a line of evals.jsonl.

  It is told by its weights, wherever they lie; Inception, whose file may not be here, by its name.
  Nothing is put on a device. Raises UserError where `name` names nothing.
  """
  if name == 'inception':
    return str(line.get('extractor')).startswith('inception-')
  return line.get('extractor_sha256') == _sha256(name)


def _sha256(name: str) -> str:
  if name == 'digits':
    return _digits_sha256()
  if _is_class(name):
    return _own_sha256(name)
  from cfg_jax.evaluate.extractors import of_run

  return of_run.sha256(files.expand(name))


@functools.cache
def _digits_sha256() -> str:
  with resources.as_file(resources.files(__package__) / 'digits.npz') as path:
    return weights.sha256(path)


@functools.cache
def _own_sha256(name: str) -> str:
  return _own(name).sha256


FIELDS = {'extractor': Field(str), 'as_adm': Field(bool, may_lack=True)}


def problems(evaluate: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `evaluate`: (field, remedy)."""
  wrong = list(fields.problems(evaluate, FIELDS))
  yield from wrong
  if wrong:
    return
  name = evaluate.extractor
  if name in EXTRACTORS or _is_class(name):
    return
  if _is_no_folder(name):
    names = ', '.join(map(repr, EXTRACTORS))
    yield 'extractor', f"must be {names}, MODULE:CLASS or the folder of a classifier's run"
    return
  from cfg_jax.evaluate.extractors import of_run

  if wrong := of_run.problem(files.expand(name), context.config.data):
    yield 'extractor', wrong
