"""What a report asks of the paper that it is about."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cfg_jax.report.curves import Curve

VERDICTS = {
  'yes': 'as in the paper',
  'partly': 'in part',
  'noise': 'within noise',
  'no': 'not found here',
  'untested': 'not tested here',
}


class Finding(NamedTuple):
  """What the paper found, and for each curve here whether it shows (a key of VERDICTS) and how."""

  title: str
  paper: str
  verdict: str
  lines: tuple[str, ...]


class Published(NamedTuple):
  """A curve that the paper prints, or a single point of another model's, to be drawn beside ours.

  column: the setting, by its dotted name, that tells the paper's curves apart; empty for another
  model. settings: all that a curve of ours must have to stand beside it in a table. metrics: by the
  names that ours have. x: values on the study's axis, nan where there is none.
  """

  name: str
  table: str
  column: dict[str, float]
  settings: dict[str, object]
  x: tuple[float, ...]
  metrics: dict[str, tuple[float, ...]]


class Study(NamedTuple):
  """A paper as the report sees it.

  axis: the dotted name of the setting that curves run over; scale: of that axis, 'linear', 'log' or
  'symlog'. title: of the page, from the names of data sets. about: one sentence on the axis.
  findings: of curves of one data set and one distance; method: how they were judged. beside: what
  the paper prints of a data set in a distance.
  """

  axis: str
  scale: str
  title: Callable[[Sequence[str]], str]
  about: str
  findings: Callable[[Sequence[Curve]], list[Finding]]
  method: str
  beside: Callable[[str, str], list[Published]]
