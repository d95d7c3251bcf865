"""What every paper in this folder says of itself."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cfg_jax.report.study import Study


class Column(NamedTuple):
  """One column of a paper's table: its name, and the fields of a config that make it."""

  name: str
  settings: Mapping[str, Any]


class Sweep(NamedTuple):
  """A sweep that makes a table or figure: a config of configs/, the axes of its grid, as --grid.

  figure: the file in the work directory that it is drawn in, beside the report.
  """

  config: str
  grid: tuple[str, ...]
  figure: str | None = None


class Paper(NamedTuple):
  """What a paper claims, and how to try it.

  grid: the axes that a sweep of any config has by default. sweeps: by the name of a table or a
  figure. columns: of its table for a data set, by the data set's name here; none where it has none.
  """

  study: Study
  grid: tuple[str, ...]
  sweeps: Mapping[str, Sweep]
  columns: Callable[[str], tuple[Column, ...]]
