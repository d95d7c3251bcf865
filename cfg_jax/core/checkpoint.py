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

from cfg_jax.core import processes, sharding, versions
from cfg_jax.core.errors import UserError


class LackingArray(ValueError):
  """A checkpoint that never held an array asked for: imported runs hold EMA weights only."""


def steps_on_disk(workdir: Path) -> list[int]:
  """The steps of a run's finished checkpoints, intact or not, in increasing order."""
  folders = (Path(workdir) / 'checkpoints').glob('*')
  return sorted(int(folder.name) for folder in folders if folder.name.isdigit())


def check_path(workdir: Path) -> None:
  """Raises UserError where Orbax would take the work directory's path for a pattern."""
  if special := sorted(set(str(Path(workdir).absolute())) & set('[]*?\\')):
    raise UserError(
      f'--workdir={workdir} has {" ".join(special)} in its path, with which checkpoints cannot be '
      'read back: name another folder.'
    )


class Checkpoints:
  """The checkpoints `<workdir>/checkpoints/<step>/`, of which the newest `keep` are kept.

  Saves run in the background; `close` waits for them. Each holds the arrays of a pytree and a small
  JSON record `extra`.
  """

  def __init__(self, workdir: Path, keep: int | None = None):
    """Opens the folder; with keep=None it is only read, and nothing is created."""
    check_path(workdir)
    self._folder = Path(workdir).absolute() / 'checkpoints'
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
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
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        arrays=ocp.args.PyTreeSave(arrays),
        record=ocp.args.JsonSave({'digests': digests(arrays), 'extra': extra}),
      ),
    )
    assert saved, f'Orbax declined to save step {step} after {self.steps()}'

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
    record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))[
      'record'
    ]
    saved = record['digests']
    there = {name: name if name in saved else versions.old_array_name(name) for name in flat}
    missing = sorted(set(there.values()) - saved.keys())
    if missing:
      raise LackingArray(f'{self._folder / str(step)} was saved without {missing[0]}.')
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
    leaves = [sharding.place(arrays[there[name]], wanted.sharding) for name, wanted in flat.items()]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves), record['extra']

  def set_aside_after(self, step: int) -> None:
    """Moves checkpoints newer than step, found damaged, to `damaged/`: Orbax replaces none."""
    if processes.is_first():
      for newer in (s for s in self.steps() if s > step):
        target = self._folder.parent / 'damaged' / str(newer)
        target.parent.mkdir(exist_ok=True)
        (self._folder / str(newer)).rename(target)
    processes.barrier('what is damaged is set aside')
    self._manager.reload()

  def close(self) -> None:
    """Waits for the saves, and releases Orbax's threads."""
    self._manager.close()


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
