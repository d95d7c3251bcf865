"""The FID Inception weights: where they are, fetched once, checked against their sha256."""

import hashlib
import os
import shutil
import urllib.request
from pathlib import Path

from cfg_jax.core import files
from cfg_jax.core.errors import UserError


class NotAtHand(UserError):
  """The weights are in no file here, and cannot be fetched."""


NAME = 'pt_inception-2015-12-05-6726825d.pth'
URL = f'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{NAME}'
SHA256 = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'


def locate(path: str | os.PathLike | None = None) -> Path:
  """The weights' file: `path`, else $CFG_JAX_INCEPTION, else the cache, downloaded on first use.

  The cache is $XDG_CACHE_HOME/cfg_jax (~/.cache/cfg_jax). A download with another sha256 is
  discarded. Raises NotAtHand where there is no file and none can be fetched, UserError where the
  one that is named is not there.
  """
  given = path or os.environ.get('CFG_JAX_INCEPTION')
  if given:
    if not Path(given).is_file():
      raise UserError(f'Inception weights {given}: no such file; download {URL}')
    return Path(given)
  cache = files.expand(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'cfg_jax'
  target = cache / NAME
  if not target.is_file():
    try:
      with urllib.request.urlopen(URL, timeout=60) as response, files.atomic(target) as file:
        shutil.copyfileobj(response, file)
        file.flush()
        if (found := sha256(file.name)) != SHA256:
          raise OSError(f'its sha256 is {found}, not {SHA256}')
    except OSError as error:  # urllib's errors are OSErrors
      raise NotAtHand(
        f'cannot fetch the Inception weights ({error}); download {URL} and put it at {target}'
      ) from None
  return target


def sha256(path: str | os.PathLike) -> str:
  """The file's sha256 in hexadecimal."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
