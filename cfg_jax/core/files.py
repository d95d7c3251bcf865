"""Files as every stage writes and reads them: complete or not at all, and JSON by the line."""

import contextlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cfg_jax.core.errors import UserError

# What reading a damaged .npz can raise; an archive that lies about sizes gives a ValueError.
NPZ_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, LookupError)


@contextlib.contextmanager
def atomic(path: str | Path, mode: str = 'wb') -> Iterator[IO]:
  r"""A file to write, which appears at `path` only once it is complete and on the disk.

  mode: 'wb', or 'w' for UTF-8 text with '\n' for line ends. Folders that are missing are made. If
  writing fails nothing is left; if the process is killed, a file whose name ends in '.part'.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  text = {} if 'b' in mode else {'encoding': 'utf-8', 'newline': ''}
  try:
    with part.open(mode, **text) as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(part, path)
  except BaseException:
    part.unlink(missing_ok=True)
    raise


def write_text(path: str | Path, text: str) -> None:
  """Writes text, see `atomic`."""
  with atomic(path, 'w') as file:
    file.write(text)


def write_json(path: str | Path, value: Any) -> None:
  """Writes indented JSON, see `atomic`."""
  write_text(path, json.dumps(value, indent=2) + '\n')


def read_json(path: str | Path) -> Any:
  """What a JSON file holds; UserError where it is damaged."""
  try:
    return json.loads(Path(path).read_text(encoding='utf-8'))
  except ValueError as error:  # of UTF-8 or of JSON
    raise UserError(f'{path} is damaged ({error}): restore it, or use a new --workdir.') from None


def json_lines(records: Any) -> str:
  """One line of JSON for each record."""
  return ''.join(json.dumps(record) + '\n' for record in records)


def read_jsonl(path: str | Path) -> list[dict]:
  """The records of a file of JSON lines, none where there is no file.

  A last line without its end is left out: another process may be writing it, or was killed. Raises
  UserError, naming the line, where any other is not JSON.
  """
  path = Path(path)
  if not path.exists():
    return []
  records = []
  for number, line in enumerate(path.read_bytes().split(b'\n')[:-1], start=1):
    try:
      records.append(json.loads(line))
    except ValueError as error:
      raise UserError(
        f'{path}, line {number}, is not JSON ({error}): remove that line, or move the file away.'
      ) from None
  return records
