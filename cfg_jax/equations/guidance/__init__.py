"""Section 3 of the paper: what moves a sample towards its condition.

A pair makes two predictions of one z, towards and away; a rule combines them. w is the paper's
guidance strength: w = 0 is the conditional model, w = −1 the unconditional one.
"""

from cfg_jax.equations.guidance.classifier_free import guided_eps, w_from_scale
from cfg_jax.equations.guidance.pairs import guide

__all__ = ['guide', 'guided_eps', 'w_from_scale']
