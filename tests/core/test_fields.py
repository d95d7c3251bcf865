"""What a field may be: kinds, ends, and no number that is none."""

import math

import pytest

from cfg_jax.core.fields import BELOW_1, TINY, Field, problems

WHOLE, SHARE = Field(int, 1, 100), Field(float, TINY, BELOW_1, 'must be in (0, 1)')


@pytest.mark.parametrize(
  ('field', 'good', 'bad'),
  [
    (WHOLE, (1, 100), (0, 101, 1.0, '1', True, None, math.nan, 10**400)),
    (SHARE, (0.5, 5e-300), (0, 1, 1.0, math.nan, math.inf, '0.5', 10**400, None, False)),
    (Field(float, TINY), (1, math.inf), (0, -math.inf, 10**400)),
    (Field(bool), (True, False), (0, 1, 'true', None)),
    (Field(str), ('', 'x'), (0, None, ('x',))),
    (Field(int, 1, 9, optional=True), (None, 3), (0,)),
    (Field(int, 1, 9, many=True), ((), (1, 9), [2]), (3, (0,), (1, None), (1.5,), 'x', None)),
  ],
)
def test_what_a_field_takes(field, good, bad):
  assert [value for value in good if not field.takes(value)] == []
  assert [value for value in bad if field.takes(value)] == []


def test_problems_name_what_is_unknown_lacking_or_out_of_range():
  table = {'a': WHOLE, 'b': SHARE, 'c': Field(str, may_lack=True)}
  found = dict(problems({'a': 0, 'd': 1}, table))
  assert found == {
    'a': 'must be a whole number, at least 1, at most 100',
    'b': 'is lacking; see configs/digits.py',
    'd': 'is no field of this section, which has a, b, c',
  }
  assert not dict(problems({'a': 1, 'b': 0.5}, table))
