"""Files as every stage writes and reads them: complete or not at all, and JSON by the line."""

import contextlib
import errno
import hashlib
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
NPZ_DAMAGE += (NotImplementedError, RuntimeError, MemoryError)  # flags and sizes in its directory


def expand(path: str | Path) -> Path:
  """The path with ~ replaced by the home folder; UserError where there is none."""
  try:
    return Path(path).expanduser()
  except RuntimeError:
    raise UserError(f'{path}: there is no home folder; set HOME, or name one without ~.') from None


def check_folder(path: str | Path, flag: str = 'workdir') -> None:
  """Raises UserError where path, which --flag names, is there and no folder can be made of it."""
  path = Path(path)
  if (path.exists() or path.is_symlink()) and not path.is_dir():
    what = 'a file' if path.exists() else 'a link to nothing'
    raise UserError(f'--{flag}={path} is {what}: name a folder.')


def make_folder(path: Path) -> None:
  """Makes a folder, and those above it, where there is none."""
  try:
    path.mkdir(parents=True, exist_ok=True)
  except FileNotFoundError:  # as /proc says it
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path)) from None


@contextlib.contextmanager
def atomic(path: str | Path, mode: str = 'wb') -> Iterator[IO]:
  r"""A file to write, which appears at `path` only once it is complete and on the disk.

  mode: 'wb', or 'w' for UTF-8 text with '\n' for line ends. Folders that are missing are made. If
  writing fails nothing is left; if the process is killed, a file whose name ends in '.part'.
  """
  path = Path(path)
  make_folder(path.parent)
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  text = {} if 'b' in mode else {'encoding': 'utf-8', 'newline': ''}
  try:
    with part.open(mode, **text) as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(part, path)
  except BaseException as error:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.errno and error.filename is None:
      error.filename = str(path)  # writing, unlike opening, does not say which file
    raise


def replace(written: str | Path, path: str | Path) -> None:
  """Gives a file that is complete its name, once its bytes are on the disk."""
  with open(written, 'rb') as file:
    os.fsync(file.fileno())
  os.replace(written, path)


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


def digest(record: Any) -> str:
  """The sha256 of a JSON value, whatever the order of its keys and the spaces between."""
  return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def seal(record: dict) -> dict:
  """The record with its digest, under 'digest'."""
  return record | {'digest': digest(record)}


def unseal(record: dict, must: bool) -> dict:
  """The record without its digest; ValueError where that differs, or is absent though it must be.

  must: False for records of versions that had none; where there is one, it is compared.
  """
  rest = {key: value for key, value in record.items() if key != 'digest'}
  if 'digest' not in record:
    if must:
      raise ValueError('its digest is missing')
  elif record['digest'] != digest(rest):
    raise ValueError('its digest is of other contents')
  return rest


def read_sealed(path: str | Path) -> dict:
  """A JSON file's record without its digest, if it has one; UserError where that differs."""
  record = read_json(path)
  try:
    return unseal(record, must=False)
  except (ValueError, AttributeError) as error:
    raise UserError(f'{path} is damaged ({error}): restore it.') from None


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


def read_log(path: str | Path) -> tuple[list[dict], int]:
  """The records of a file of JSON lines that can be read, and how many lines cannot.

  For logs, which decide nothing: damage is passed over. A last line without its end is not counted.
  """
  path = Path(path)
  if not path.exists():
    return [], 0
  records, lines = [], path.read_bytes().split(b'\n')[:-1]
  for line in lines:
    with contextlib.suppress(ValueError):
      records.append(json.loads(line))
  records = [record for record in records if isinstance(record, dict)]
  return records, len(lines) - len(records)
