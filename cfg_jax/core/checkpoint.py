"""Checkpoints: Orbax behind one small file, with a digest for every leaf.

Orbax does not checksum array data, so a flipped bit restores in silence: each checkpoint carries a
digest of every leaf, and what is restored is compared with it. A checkpoint that does not match is
named and skipped, and the one before it is taken.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from cfg_jax.core import files, processes, sharding, versions
from cfg_jax.core.errors import UserError
from cfg_jax.core.steps import steps_on_disk


class LackingArray(UserError):
  """A checkpoint that never held an array asked for, or of another shape; it is not damaged."""


def check_path(workdir: Path) -> None:
  """Raises UserError where no folder can be there, or Orbax would take its path for a pattern."""
  files.check_folder(workdir)
  if special := sorted(set(str(Path(workdir).absolute())) & set('[]*?\\')):
    raise UserError(
      f'--workdir={workdir} has {" ".join(special)} in its path, with which checkpoints cannot be '
      'read back: name another folder.'
    )


class Checkpoints:
  """The checkpoints `<workdir>/checkpoints/<step>/`, of which the newest `keep` are kept.

  Saves run in the background; `close` waits for them. Each holds the arrays of a pytree and a small
  JSON record `extra`. Older ones are removed once the newest one's record could be read back: at
  the next save, or by `close`.
  """

  def __init__(self, workdir: Path, keep: int | None = None):
    """Opens the folder; with keep=None it is only read, and nothing is created."""
    check_path(workdir)
    self._folder = Path(workdir).absolute() / 'checkpoints'
    self._keep, self._unread = keep, None  # _unread: (step, record) of the save under way
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        create=keep is not None,
        read_only=keep is None,
        cleanup_tmp_directories=keep is not None,
      ),
      item_names=('arrays', 'record'),
    )

  def steps(self) -> list[int]:
    """See `steps_on_disk`."""
    return steps_on_disk(self._folder.parent)

  def save(self, step: int, state: Any, extra: dict) -> None:
    """Starts to save; state may be donated once this returns. Raises if the last save failed."""
    arrays = _flatten(state)
    record = {'digests': digests(arrays), 'extra': extra}
    self._wait_and_remove_old()
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        arrays=ocp.args.PyTreeSave(arrays), record=ocp.args.JsonSave(files.seal(record))
      ),
    )
    assert saved, f'Orbax declined to save step {step} after {self.steps()}'
    self._unread = step, record

  def _wait_and_remove_old(self):
    """Once the last save is complete, and its record reads as it was given, the oldest go."""
    self._manager.wait_until_finished()
    if self._unread is None:
      return
    (step, record), self._unread = self._unread, None
    try:
      if self._record(step) != record:
        raise ValueError('its record is not the one that was saved')
    except Exception as e:
      if processes.is_first():
        print(
          f'{self._folder / str(step)} cannot be read back: {_first_line(e)}; older ones are kept.',
          file=sys.stderr,
        )
      return
    for old in self.steps()[: -self._keep]:
      self._manager.delete(old)

  def _record(self, step):
    """The record of a step as `save` was given it; ValueError where it is damaged."""
    only = ocp.args.Composite(record=ocp.args.JsonRestore())
    record = self._manager.restore(step, args=only)['record']
    return files.unseal(record, must=False)

  def restore(self, abstract: Any, step: int | None = None) -> tuple[Any, dict] | None:
    """The newest intact checkpoint (or that of `step`) and its record; None if there is none.

    abstract: the pytree to restore into, of `jax.ShapeDtypeStruct` with shardings; leaves that it
    lacks are not read. Raises UserError if there is no such step, if a checkpoint never held one
    of the arrays, or if checkpoints exist but none is intact.
    """
    steps = self.steps() if step is None else [step]
    if not set(steps) <= set(self.steps()):
      have = ', '.join(map(str, self.steps())) or 'none'
      raise UserError(f'{self._folder} has no step {step}; it has {have}.')
    damage = []
    for step in reversed(steps):
      try:
        return self._restore(abstract, step)
      except LackingArray:
        raise
      except Exception as e:  # whatever a damaged file makes of Orbax, TensorStore or JSON
        damage.append(f'{self._folder / str(step)} is damaged: {_first_line(e)}')
        if processes.is_first():
          print(f'{damage[-1]}; it is skipped.', file=sys.stderr)
    if damage:
      raise UserError(
        'No intact checkpoint. ' + '; '.join(damage) + '. Remove them to start afresh.'
      )
    return None

  def _restore(self, abstract, step):
    flat = _flatten(abstract)
    record = self._record(step)
    saved = record['digests']
    there = {name: name if name in saved else versions.old_array_name(name) for name in flat}
    missing = sorted(set(there.values()) - saved.keys())
    if missing:
      raise LackingArray(f'{self._folder / str(step)} was saved without {missing[0]}.')
    shapes = {there[name]: tuple(wanted.shape) for name, wanted in flat.items()}
    # Complete and on the host, in every process: so all of them see the same damage.
    arrays = self._manager.restore(
      step,
      args=ocp.args.Composite(
        arrays=ocp.args.PyTreeRestore(
          {there[name]: wanted for name, wanted in flat.items()},
          restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in there.values()},
          partial_restore=True,
        )
      ),
    )['arrays']
    for name, digest in digests(arrays).items():
      if digest != saved[name]:
        raise UserError(f'the bytes of {name} are not those that were saved')
    for name, shape in shapes.items():
      if arrays[name].shape != shape:
        raise LackingArray(
          f'{self._folder / str(step)} holds {name} of {arrays[name].shape}, not {shape}: it is of '
          'another network.'
        )
    leaves = [sharding.place(arrays[there[name]], wanted.sharding) for name, wanted in flat.items()]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves), record['extra']

  def newest_intact(self) -> int | None:
    """The newest step whose arrays are all those that were saved; None if there is none."""
    for step in reversed(self.steps()):
      try:
        names = self._record(step)['digests']
        host = ocp.RestoreArgs(restore_type=np.ndarray)
        arrays = ocp.args.PyTreeRestore(
          dict.fromkeys(names, 0), restore_args=dict.fromkeys(names, host)
        )
        found = self._manager.restore(step, args=ocp.args.Composite(arrays=arrays))['arrays']
        if digests(found) == names:
          return step
      except Exception:  # as in `restore`
        continue
    return None

  def set_aside_after(self, step: int) -> None:
    """Moves checkpoints newer than step, found damaged, to `damaged/`: Orbax replaces none."""
    if processes.is_first():
      for newer in (s for s in self.steps() if s > step):
        aside = self._folder.parent / 'damaged'
        aside.mkdir(exist_ok=True)
        again = len(list(aside.glob(f'{newer}*')))
        (self._folder / str(newer)).rename(aside / (f'{newer}-{again}' if again else str(newer)))
    processes.barrier('what is damaged is set aside')
    self._manager.reload()

  def close(self) -> None:
    """Waits for the saves, removes what is too old, and releases Orbax's threads."""
    try:
      self._wait_and_remove_old()
    finally:
      self._manager.close()


def restore_params(
  abstract: dict[str, Any],
  workdir: Path,
  step: int | None,
  mesh: jax.sharding.Mesh,
  name: str = 'ema',
) -> tuple[int, dict[str, Any]]:
  """(step, parameters by player) of the newest intact checkpoint, or of `step`, on every device.

  abstract: their shapes; name: 'ema' or 'params'. Raises UserError where there is no intact one, or
  it is of another network.
  """
  wanted = {'step': jax.ShapeDtypeStruct((), np.int32), name: abstract}
  checkpoints = Checkpoints(workdir)
  restored = checkpoints.restore(sharding.abstract(wanted, sharding.replicated(mesh)), step)
  checkpoints.close()
  if restored is None:
    raise UserError(f'{workdir} has no checkpoint: train first.')
  return int(restored[0]['step']), restored[0][name]


def digests(arrays: dict[str, jax.Array]) -> dict[str, str]:
  """The sha256 of each array's bytes, however it is sharded; one array at a time is on the host."""
  return {
    name: hashlib.sha256(np.ascontiguousarray(sharding.gather(x))).hexdigest()
    for name, x in arrays.items()
  }


def _flatten(tree: Any) -> dict[str, Any]:
  """A flat dict of the leaves by path: 'params.network.conv_in.kernel', …."""
  paths = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf for path, leaf in paths}


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
