"""evals.jsonl: a line for every sample set that was evaluated, each with a digest."""

from pathlib import Path

from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.core.versions import SEALED, VERSION


def read(path: Path) -> list[dict]:
  """The lines, in today's version and without their digests; none where there is no file.

  Those of version 1 are as they lie there: see `generate.upgrade`. A last line without its end is
  left out. Raises UserError, naming the line, where one is damaged.
  """
  lines = []
  for number, line in enumerate(files.read_jsonl(path), start=1):
    try:
      lines.append(_checked(line))
    except ValueError as error:
      raise UserError(
        f'{path}, line {number}, is damaged ({error}): remove that line, and evaluate again.'
      ) from None
  return lines


def _checked(line):
  if not isinstance(line, dict) or 'version' not in line and 'digest' not in line:
    return line
  version = line.get('version')
  line = files.unseal(line, must=not isinstance(version, int) or version >= SEALED)
  return line | {'version': VERSION} if version in range(2, VERSION) else line


def write(path: Path, lines: list[dict]) -> None:
  """Writes all lines anew, each with its digest."""
  files.write_text(path, files.json_lines(map(files.seal, lines)))
