"""The networks that a config, or --extractor, may name. Each is imported when it is asked for.

One's own is named MODULE:CLASS, such as --extractor=my_network:Extractor: a class made without
arguments that is a `features.Extractor`. Its distance is then called FD-<name>.
"""

import importlib
from collections.abc import Callable

import ml_collections

from cfg_jax.core import config as config_lib
from cfg_jax.core.config import Context, Problems
from cfg_jax.core.errors import UserError
from cfg_jax.evaluate.features import Extractor

# A field that configs may leave out: whether metrics are computed as ADM's evaluator does.
config_lib.FIT['evaluate'] = lambda evaluate: {'as_adm': False} | evaluate
ATTRIBUTES = ('name', 'sha256', 'dim', 'resize', 'is_public', 'labels_of')  # of an `Extractor`


def _digits() -> Extractor:
  from cfg_jax.evaluate.extractors.digits import DigitsExtractor

  return DigitsExtractor()


def _inception(**options) -> Extractor:
  from cfg_jax.evaluate.extractors.inception import Inception

  return Inception(**options)


EXTRACTORS: dict[str, Callable[..., Extractor]] = {'digits': _digits, 'inception': _inception}


def make(name: str, **options) -> Extractor:
  """The extractor that `name` names, one of EXTRACTORS or MODULE:CLASS.

  options: of one in EXTRACTORS. Raises UserError where there is none, or it lacks something.
  """
  if name in EXTRACTORS:
    return EXTRACTORS[name](**options)
  module, colon, attribute = name.partition(':')
  if not colon:
    names = ', '.join(EXTRACTORS)
    raise UserError(f'--extractor={name} is none of {names}; name one of your own MODULE:CLASS.')
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


def problems(evaluate: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `evaluate`: (field, remedy)."""
  del context
  if evaluate.extractor not in EXTRACTORS and ':' not in evaluate.extractor:
    yield 'extractor', f'must be {", ".join(map(repr, EXTRACTORS))} or MODULE:CLASS'
  if not isinstance(evaluate.get('as_adm', False), bool):
    yield 'as_adm', 'must be true or false'
