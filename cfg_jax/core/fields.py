"""What the fields of a config's section may be: a table that the section's owner holds."""

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

TINY = sys.float_info.min  # the least number above 0
BELOW_1 = math.nextafter(1.0, 0.0)
KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}


class Field(NamedTuple):
  """One field's kind, and the least and the greatest number that it may be.

  says: the remedy, where more is to be said than kind and ends. many: a list of such. optional:
  None will do. may_lack: a section without it will do too.
  """

  kind: type  # bool, int, float or str
  low: float = -math.inf
  high: float = math.inf
  says: str = ''
  many: bool = False
  optional: bool = False
  may_lack: bool = False

  def takes(self, value: Any) -> bool:
    """Whether value is of this kind and within the ends; no NaN is."""
    if value is None:
      return self.optional
    if self.many:
      one = self._replace(many=False, optional=False)
      return isinstance(value, tuple | list) and all(map(one.takes, value))
    if self.kind in (bool, str):
      return isinstance(value, self.kind)
    kinds = (int,) if self.kind is int else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
      return False
    return self.low <= value <= self.high and (self.kind is int or _is_float(value))

  @property
  def remedy(self) -> str:
    """What to do instead."""
    what = KINDS[self.kind]
    if self.many:
      what = f'a list, each item {what}'
    ends = [f'at least {_short(self.low)}'] if self.low > -math.inf else []
    ends += [f'at most {_short(self.high)}'] if self.high < math.inf else []
    none = ', or none' if self.optional else ''
    said = self.says or ', '.join(['must be ' + what, *ends]) + none
    return said


def problems(section: Mapping[str, Any], table: Mapping[str, Field]) -> Iterator[tuple[str, str]]:
  """(field, remedy) for each field that is unknown, lacking or out of range."""
  for name in section:
    if name not in table:
      yield name, f'is no field of this section, which has {", ".join(table)}'
  for name, field in table.items():
    if name not in section:
      if not field.may_lack:
        yield name, 'is lacking; see configs/digits.py'
    elif not field.takes(section[name]):
      yield name, field.remedy


def splits(size: int, num_devices: int) -> Iterator[str]:
  """The remedy where a batch of `size` images cannot be split over the devices."""
  if size >= 1 and size % num_devices:
    nearest = max(num_devices, round(size / num_devices) * num_devices)
    yield f'must be a multiple of {num_devices} devices; try {nearest}'


def _is_float(value):
  try:
    float(value)
  except OverflowError:  # a whole number of hundreds of digits
    return False
  return True


def _short(number):
  return f'{number:,.0f}'.replace(',', ' ') if float(number).is_integer() else f'{number:.4g}'
