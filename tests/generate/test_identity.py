"""Whatever changes a picture changes the name of its set."""

import json

import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.generate import identity
from cfg_jax.generate.store import SampleSet, sample_sets
from tests.conftest import load_config

CONFIG = load_config('digits')
FIELDS = config_lib.flat({'sample': CONFIG.sample.to_dict()})


def path_of(config, step=10, w=0.5):
  return identity.path(identity.settings_of(config.sample.to_dict(), step, w))


@pytest.mark.parametrize('field', FIELDS)
def test_every_setting_of_a_sample_is_in_it_by_construction(field):
  if field == 'sample.guidance.w':
    return
  value = FIELDS[field]
  other = {bool: str(not value), str: 'other'}.get(type(value), '77')
  changed = config_lib.change(CONFIG, [f'{field}={other}'])
  same = field.removeprefix('sample.') in identity.NOT_IDENTITY
  assert (path_of(changed) == path_of(CONFIG)) == same


def test_a_setting_that_nobody_has_thought_of_yet_is_in_it_too():
  config = CONFIG.copy_and_resolve_references().unlock()
  config.sample.guidance.start = -1.0
  assert path_of(config) != path_of(CONFIG)


def test_steps_and_strengths_that_look_alike_are_apart():
  paths = {path_of(CONFIG, step, w) for step in (10, 11) for w in (0.1, 0.10000001, 1.0)}
  assert len(paths) == 6
  assert len({path.rpartition('/')[0] for path in paths}) == 2  # w alone: the same noise, one grid


def test_an_integer_strength_is_the_float(tmp_path):
  config = CONFIG.copy_and_resolve_references().unlock()
  config.sample.guidance.w = (1, 2.0)
  assert [s.path for s in sample_sets(config.sample, 3)] == [
    path_of(CONFIG, 3, 1.0),
    path_of(CONFIG, 3, 2.0),
  ]


def test_the_settings_lie_beside_the_shards(tmp_path):
  settings = identity.settings_of(CONFIG.sample.to_dict(), 3, 0.1)
  sample_set = SampleSet(settings)
  sample_set.write(tmp_path, 0, np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, np.int32))
  assert json.loads((tmp_path / sample_set.path / 'identity.json').read_text()) == settings
