"""The networks that a config, or --extractor, may name."""

from cfg_jax.evaluation.digits import DigitsExtractor
from cfg_jax.evaluation.inception import Inception

EXTRACTORS = {'digits': DigitsExtractor, 'inception': Inception}
