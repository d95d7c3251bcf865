"""The knobs of rules and solvers: keyword-only parameters, which a config sets by name."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def problems(function: Callable, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """A (knob, remedy) for each of knobs that the function does not take, or takes and is not set."""
  parameters = inspect.signature(function).parameters.values()
  known = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
  for name in knobs:
    if name not in known:
      yield name, f'is no knob of {function.__name__}, which has {", ".join(known)}'
  for parameter in parameters:
    if parameter.name in known and parameter.default is parameter.empty:
      if parameter.name not in knobs:
        yield parameter.name, f'is a knob that {function.__name__} needs'
