"""Checkpoints: every flipped bit is noticed, the newest intact one is taken, old ones go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.core.checkpoint import Checkpoints, digests
from cfg_jax.core.errors import UserError

STATE = {'step': jnp.int32(7), 'params': {'a': {0: jnp.arange(4096.0)}, 'b': jnp.ones((3, 5))}}


def abstract(state):
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def save(workdir, *steps, keep=9):
  checkpoints = Checkpoints(workdir, keep)
  for step in steps:
    checkpoints.save(step, STATE | {'step': jnp.int32(step)}, {'position': 10 * step})
  checkpoints.close()


def flip_a_bit_of_the_largest_file(folder):
  """Flips one bit in the middle of the arrays' data, as a bad disk would."""
  file = max((f for f in folder.rglob('*') if f.is_file()), key=lambda f: f.stat().st_size)
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def test_what_is_saved_is_restored(tmp_path):
  save(tmp_path, 3, 5)
  state, extra = Checkpoints(tmp_path).restore(abstract(STATE))
  assert extra == {'position': 50}
  jax.tree.map(np.testing.assert_array_equal, state, STATE | {'step': 5})
  assert Checkpoints(tmp_path).restore(abstract(STATE), step=3)[1] == {'position': 30}


def test_a_part_of_the_state_can_be_restored(tmp_path):
  save(tmp_path, 3)
  params, _ = Checkpoints(tmp_path).restore(abstract({'params': STATE['params']}))
  jax.tree.map(np.testing.assert_array_equal, params, {'params': STATE['params']})


def test_a_damaged_checkpoint_is_named_and_skipped(tmp_path, capsys):
  save(tmp_path, 3, 5)
  flip_a_bit_of_the_largest_file(tmp_path / 'checkpoints' / '5')
  state, _ = Checkpoints(tmp_path).restore(abstract(STATE))
  assert state['step'] == 3
  assert f'{tmp_path}/checkpoints/5 is damaged' in capsys.readouterr().err


def test_bytes_that_decode_but_differ_are_noticed(tmp_path, monkeypatch):
  """Orbax restores some flipped bits in silence: the digest is what notices."""
  wrong = {'params.b': 'f' * 64}
  monkeypatch.setattr('cfg_jax.core.checkpoint.digests', lambda arrays: digests(arrays) | wrong)
  save(tmp_path, 3)
  monkeypatch.undo()
  with pytest.raises(ValueError, match='the bytes of params.b are not those that were saved'):
    Checkpoints(tmp_path).restore(abstract(STATE))


def test_an_empty_step_folder_is_skipped(tmp_path):
  save(tmp_path, 3)
  (tmp_path / 'checkpoints' / '9').mkdir()
  assert Checkpoints(tmp_path).restore(abstract(STATE))[0]['step'] == 3


def test_saving_goes_on_after_a_damaged_one(tmp_path):
  """Orbax declines, in silence, to save a step older than its newest: the damaged one must go."""
  save(tmp_path, 3, 5)
  flip_a_bit_of_the_largest_file(tmp_path / 'checkpoints' / '5')
  checkpoints = Checkpoints(tmp_path, keep=9)
  checkpoints.set_aside_after(3)
  checkpoints.save(4, STATE, {})
  checkpoints.close()
  assert Checkpoints(tmp_path).steps() == [3, 4]
  assert (tmp_path / 'damaged' / '5').is_dir()


def test_none_intact_is_an_error_and_none_at_all_is_none(tmp_path):
  assert Checkpoints(tmp_path).restore(abstract(STATE)) is None
  save(tmp_path, 3)
  flip_a_bit_of_the_largest_file(tmp_path / 'checkpoints' / '3')
  with pytest.raises(ValueError, match='No intact checkpoint'):
    Checkpoints(tmp_path).restore(abstract(STATE))


def test_what_was_never_there_is_not_called_damaged(tmp_path, capsys):
  save(tmp_path, 3, 5)
  with pytest.raises(ValueError, match=r'has no step 4; it has 3, 5\.'):
    Checkpoints(tmp_path).restore(abstract(STATE), step=4)
  with pytest.raises(ValueError, match=r'5 was saved without ema\.b\.'):
    Checkpoints(tmp_path).restore(abstract(STATE | {'ema': {'b': STATE['step']}}))
  assert 'damaged' not in capsys.readouterr().err


def test_only_the_newest_are_kept(tmp_path):
  save(tmp_path, 1, 2, 3, 4, keep=2)
  assert Checkpoints(tmp_path).steps() == [3, 4]


def test_old_ones_stay_where_a_new_one_cannot_be_read_back(tmp_path, capsys, monkeypatch):
  save(tmp_path, 1, 2, keep=2)
  monkeypatch.setattr(Checkpoints, '_record', lambda self, step: {'of': 'another'})
  save(tmp_path, 3, 4, keep=2)
  assert Checkpoints(tmp_path).steps() == [1, 2, 3, 4]
  assert f'{tmp_path}/checkpoints/4 cannot be read back' in capsys.readouterr().err
  monkeypatch.undo()
  save(tmp_path, 5, keep=2)
  assert Checkpoints(tmp_path).steps() == [4, 5]


def test_the_newest_intact_one_is_found_without_its_network(tmp_path):
  assert Checkpoints(tmp_path).newest_intact() is None
  save(tmp_path, 3, 5)
  assert Checkpoints(tmp_path).newest_intact() == 5
  flip_a_bit_of_the_largest_file(tmp_path / 'checkpoints' / '5')
  assert Checkpoints(tmp_path).newest_intact() == 3


def test_a_changed_record_is_noticed(tmp_path):
  save(tmp_path, 3, 5)
  file = tmp_path / 'checkpoints' / '5' / 'record' / 'metadata'
  file.write_text(
    file.read_text()
    .replace('"position": 50', '"position": 51')
    .replace('"position":50', '"position":51')
  )
  assert Checkpoints(tmp_path).restore(abstract(STATE))[1] == {'position': 30}


def test_digests_see_every_bit():
  x = np.linspace(-1, 1, 1000, dtype=np.float32)
  seen = {digests({'x': jnp.asarray(x)})['x']}
  for bit in range(32):
    flipped = x.copy()
    flipped.view(np.uint32)[500] ^= np.uint32(1 << bit)
    seen.add(digests({'x': jnp.asarray(flipped)})['x'])
  assert len(seen) == 33


@pytest.mark.parametrize('name', ['runs[1]', 'a\\b', 'a*', 'a?'])
def test_a_path_that_orbax_takes_for_a_pattern_is_refused_before_anything_is_written(
  name, tmp_path
):
  with pytest.raises(UserError, match='name another folder'):
    Checkpoints(tmp_path / name, keep=1)
  assert not list(tmp_path.iterdir())
