"""The networks that a config, or --extractor, may name."""

import ml_collections

from cfg_jax.core.config import Context, Problems
from cfg_jax.evaluate.extractors.digits import DigitsExtractor
from cfg_jax.evaluate.extractors.inception import Inception

EXTRACTORS = {'digits': DigitsExtractor, 'inception': Inception}


def problems(evaluate: ml_collections.ConfigDict, context: Context) -> Problems:
  """What is wrong with the config's section `evaluate`: (field, remedy)."""
  del context
  if evaluate.extractor not in EXTRACTORS:
    yield 'extractor', f'must be {" or ".join(map(repr, EXTRACTORS))}'
