"""The knobs of rules, grids and solvers: keyword-only parameters, which a config sets by name."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def names(function: Callable) -> list[str]:
  """The knobs of a function."""
  parameters = inspect.signature(function).parameters.values()
  return [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]


def defaults(function: Callable) -> dict[str, Any]:
  """The knobs of a function that need not be set, with their values."""
  parameters = inspect.signature(function).parameters
  values = {name: parameters[name].default for name in names(function)}
  return {name: value for name, value in values.items() if value is not inspect.Parameter.empty}


def pick(function: Callable, knobs: Mapping[str, Any]) -> dict[str, Any]:
  """Those of knobs that the function takes."""
  return {name: knobs[name] for name in names(function) if name in knobs}


def problems(knobs: Mapping[str, Any], *functions: Callable) -> Iterator[tuple[str, str]]:
  """A (knob, remedy) for each of knobs that no function takes, and that one needs or can't be."""
  known = [name for function in functions for name in names(function)]
  what = ' or '.join(function.__name__ for function in functions)
  for name in knobs:
    if name not in known:
      yield name, f'is no knob of {what}, which has {", ".join(known) or "none"}'
  for function in functions:
    given = defaults(function)
    for name in names(function):
      if name not in knobs:
        if name not in given:
          yield name, f'is a knob that {function.__name__} needs'
      elif name in given and not is_like(knobs[name], given[name]):
        yield name, f'must be of the type of {given[name]!r}'


def is_like(value: Any, default: Any) -> bool:
  """Whether a value is of a default's type: a whole number is a float too, a list a tuple."""
  if isinstance(default, float):
    return isinstance(value, int | float) and not isinstance(value, bool)
  if isinstance(default, tuple):
    return isinstance(value, tuple | list) and all(is_like(item, 0.0) for item in value)
  return type(value) is type(default)
