"""Kinds of conditions: how the condition of each sample is chosen."""

import numpy as np


def problem(how: str, num_classes: int) -> str:
  """What is wrong with the choice `how` of classes, with the remedy; '' where nothing is."""
  if how in ('balanced', 'random') or how.isdecimal() and int(how) < num_classes:
    return ''
  return f"must be 'balanced', 'random' or one class, '0' to '{num_classes - 1}'"


def choose(how: str, seed: int, indices: np.ndarray, num_classes: int) -> np.ndarray:
  """The class of each sample: 'balanced' is index mod num_classes, 'random' uniform, or one class.

  indices: (B,). Returns int32 (B,). The paper does not say how it draws classes.
  """
  if how == 'balanced':
    return (indices % num_classes).astype(np.int32)
  if how == 'random':
    # Philox is counter-based: index i's draw costs the same wherever it starts.
    draws = [
      np.random.Generator(np.random.Philox(key=[seed, i])).integers(num_classes) for i in indices
    ]
    return np.array(draws, np.int32)
  return np.full(len(indices), int(how), np.int32)
