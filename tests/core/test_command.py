"""How commands end: mistakes and the system's refusals in one line, bugs with a traceback."""

import os

import pytest
from absl import flags

from cfg_jax.core import command
from cfg_jax.core.errors import UserError


@pytest.fixture
def ended(monkeypatch, capsys):
  """`ended(main, *argv)` runs a command to its end: (exit code, stderr)."""

  def run(main, *argv, **kwargs):
    flags.FLAGS.unparse_flags()
    monkeypatch.setattr('sys.argv', ['command', *argv])
    with pytest.raises(SystemExit) as end:
      command.run(main, **kwargs)
    return end.value.code, capsys.readouterr().err

  yield run
  flags.FLAGS.unparse_flags()


def fail(error):
  def main(argv):
    raise error

  return main


def test_a_users_mistake_is_its_text_and_code_2(ended):
  assert ended(fail(UserError('seed=-1 must be 0 or more.'))) == (2, 'seed=-1 must be 0 or more.\n')


def test_a_bug_keeps_its_traceback_wherever_it_was_raised(monkeypatch):
  monkeypatch.setattr('sys.argv', ['command'])
  for error in (ValueError('too many values'), KeyError('x'), FileNotFoundError(2, 'no', 'x')):
    with pytest.raises(type(error)):
      command.run(fail(error))


def test_a_full_disk_is_one_line(ended):
  error = OSError(28, os.strerror(28), '/runs/a/config.json')
  code, text = ended(fail(error))
  assert code == 1 and text.count('\n') == 1
  assert text.startswith('/runs/a/config.json: No space left on device. Mend that')


def test_words_are_left_over_unless_they_are_asked_for(ended):
  code, text = ended(lambda argv: None, 'config.train.num_steps=5')
  assert code == 2 and "'config.train.num_steps=5' is left over" in text
  assert ended(lambda argv: None, 'flowers', words=True) == (None, '')


def test_what_a_library_says_of_the_system_is_one_line_and_its_traceback_is_in_a_log(
  ended, tmp_path
):
  text = 'RESOURCE: writing "/runs/a/5.tmp/d/x": No space left on device [more]\nand more'
  code, err = ended(fail(RuntimeError(text)))
  assert code == 1 and err.count('\n') == 1
  assert err.startswith('/runs/a/5.tmp/d/x: No space left on device. Mend that')
  log = err.partition('Details: ')[2].strip()
  with open(log) as file:
    assert 'and more' in file.read()


def test_memory_and_ctrl_c_are_one_line_each(ended):
  code, err = ended(fail(MemoryError()))
  assert code == 1 and err.startswith('There is not enough memory') and err.count('\n') == 1
  assert ended(fail(KeyboardInterrupt()))[0] == 130


def test_an_unknown_flag_suggests_the_near_one(ended):
  code, err = ended(lambda argv: None, '--verbosit=1')
  assert (code, err) == (2, '--verbosit is no flag of this command; did you mean --verbosity?\n')
  code, err = ended(lambda argv: None, '–verbosity=1')
  assert code == 2 and err.endswith('as in --verbosity=1.\n')
