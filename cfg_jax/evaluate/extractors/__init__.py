"""The networks that a config, or --extractor, may name. Each is imported when it is asked for."""

from collections.abc import Callable

import ml_collections

from cfg_jax.core import fields
from cfg_jax.core.config import Context, Problems
from cfg_jax.core.fields import Field
from cfg_jax.evaluate.features import Extractor


def _digits() -> Extractor:
  from cfg_jax.evaluate.extractors.digits import DigitsExtractor

  return DigitsExtractor()


def _inception(**options) -> Extractor:
  from cfg_jax.evaluate.extractors.inception import Inception

  return Inception(**options)


EXTRACTORS: dict[str, Callable[..., Extractor]] = {'digits': _digits, 'inception': _inception}


def problems(evaluate: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `evaluate`: (field, remedy)."""
  del context
  wrong = list(fields.problems(evaluate, {'extractor': Field(str)}))
  yield from wrong
  if not wrong and evaluate.extractor not in EXTRACTORS:
    yield 'extractor', f'must be {" or ".join(map(repr, EXTRACTORS))}'
