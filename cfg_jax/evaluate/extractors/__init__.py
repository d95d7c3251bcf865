"""The networks that a config, or --extractor, may name."""

from cfg_jax.evaluate.extractors.digits import DigitsExtractor
from cfg_jax.evaluate.extractors.inception import Inception

EXTRACTORS = {'digits': DigitsExtractor, 'inception': Inception}
