"""Sealed records: whatever is changed in one is noticed, and older ones are read."""

import json

import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core import evals, files
from cfg_jax.core.errors import UserError
from cfg_jax.core.versions import VERSION

LINES = [{'version': VERSION, 'w': w, 'metrics': {'FD': 1.25, 'IS': float('nan')}} for w in (0, 1)]


def test_lines_are_read_as_they_were_written(tmp_path):
  path = tmp_path / 'evals.jsonl'
  evals.write(path, LINES)
  assert json.dumps(evals.read(path)) == json.dumps(LINES)
  assert evals.read(tmp_path / 'none') == []


def test_every_changed_byte_of_a_line_is_noticed(tmp_path):
  path = tmp_path / 'evals.jsonl'
  evals.write(path, LINES)
  data, before = path.read_bytes(), json.dumps(LINES)
  for i in range(data.index(b'\n')):
    for bit in (1, 4, 16):
      changed = bytearray(data)
      changed[i] ^= bit
      path.write_bytes(changed)
      try:
        assert json.dumps(evals.read(path)) == before, changed[i - 9 : i + 9]
      except UserError as error:
        assert str(path) in str(error) and 'line' in str(error)


def test_a_line_without_its_digest_is_one_of_an_older_version_or_damaged(tmp_path):
  path = tmp_path / 'evals.jsonl'
  files.write_text(path, files.json_lines(line | {'version': 2} for line in LINES))
  assert json.dumps(evals.read(path)) == json.dumps(LINES)
  files.write_text(path, files.json_lines(LINES))
  with pytest.raises(UserError, match='line 1, is damaged .its digest is missing'):
    evals.read(path)


def test_every_changed_byte_of_a_recorded_config_is_noticed(tiny, tmp_path):
  config_lib.record(tiny, tmp_path)
  path = tmp_path / 'config.json'
  data = path.read_bytes()
  for i in range(0, len(data), 7):
    changed = bytearray(data)
    changed[i] ^= 1
    path.write_bytes(changed)
    try:
      assert config_lib.of_run(tmp_path) == tiny, changed[i - 9 : i + 9]
    except UserError as error:
      assert str(path) in str(error)
  path.write_text(json.dumps({'config': json.loads(tiny.to_json())}))
  with pytest.raises(UserError, match='its digest is missing'):
    config_lib.of_run(tmp_path)


def test_a_log_is_read_past_what_is_damaged(tmp_path):
  path = tmp_path / 'log'
  path.write_text('{"step": 1}\n{"st\n[]\n{"step": 2}\n{"step"')
  assert files.read_log(path) == ([{'step': 1}, {'step': 2}], 2)
