"""Files of reference statistics: our own format, and those that other programs write.

.npz  mu, sigma (TTUR, pytorch-fid, EDM); with mu_s, sigma_s and arr_0, 10 000 images (ADM)
.pkl  {'fid': {'mu', 'sigma'}} (EDM2), read by an unpickler that knows arrays and nothing else
.npz  our own: also n, features of some images, and the settings they were made with
"""

import dataclasses
import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.core.versions import VERSION
from cfg_jax.evaluate import metrics
from cfg_jax.evaluate.extractors import weights
from cfg_jax.evaluate.features import Features, check_enough

_FLOATS = ('mu', 'sigma', 'mu_s', 'sigma_s', 'features')


@dataclasses.dataclass(frozen=True)
class Reference:
  """Mean (D,) and covariance (D, D) of the data's features, and what else the file holds.

  `spatial`: the same of spatial features, for sFID. `features`: (M, D) of M of its images, for KID,
  precision and recall. `has_images`: the file holds images to compute such features from. `n` and
  `settings` are None and empty where the file does not say.
  """

  path: Path
  sha256: str
  mean: np.ndarray
  cov: np.ndarray
  spatial: tuple[np.ndarray, np.ndarray] | None = None
  features: np.ndarray | None = None
  n: int | None = None
  settings: dict = dataclasses.field(default_factory=dict)
  has_images: bool = False
  _radii2: dict[int, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

  def radii2(self, k: int) -> np.ndarray:
    """Of each row of `features`, the squared distance to the k-th nearest; computed once."""
    if k not in self._radii2:
      self._radii2[k] = metrics.neighbour_radii2(self.features.astype(np.float64), k, 'real')
    return self._radii2[k]


def provenance(reference: Reference) -> dict:
  """What a line of evals.jsonl says of its reference."""
  return {
    'reference': reference.settings.get('dataset', str(reference.path)),
    'reference_n': reference.n,
    'reference_sha256': reference.sha256,
  }


def has_statistics(path: str | Path) -> bool:
  """Whether the file holds statistics; where not, it may hold images to compute them from."""
  path = Path(path)
  if path.suffix != '.npz' or not path.is_file():
    return path.suffix == '.pkl'
  try:
    with zipfile.ZipFile(path) as archive:
      return 'mu.npy' in archive.namelist()
  except (zipfile.BadZipFile, OSError) as error:
    raise UserError(f'{path} is damaged or no .npz file: {error}') from None


def read(path: str | Path) -> Reference:
  """The statistics in a file of any of the formats above; UserError where it has none.

  No file can run code.
  """
  path = Path(path)
  if not path.is_file():
    raise UserError(f'reference {path} does not exist.')
  try:
    arrays = _read_pkl(path) if path.suffix == '.pkl' else _read_npz(path)
    _check_digest(arrays)
    arrays = {k: _checked(k, v) if k in _FLOATS else v for k, v in arrays.items()}
    settings = dict(json.loads(str(arrays.get('settings', '{}'))))
    settings.pop('version', None)
    spatial = (arrays['mu_s'], arrays['sigma_s']) if 'mu_s' in arrays else None
    n = int(arrays['n']) if 'n' in arrays else None
    for mean, cov in ((arrays['mu'], arrays['sigma']), *([spatial] if spatial else [])):
      if cov.shape != (mean.size, mean.size):
        raise UserError(f'mu is {mean.shape} and sigma {cov.shape}')
    rows = arrays.get('features')
    if rows is not None and rows.shape[1:] != arrays['mu'].shape:
      raise UserError(f'mu is {arrays["mu"].shape} and features {rows.shape}')
  except Exception as error:  # a damaged pickle can raise anything
    what = f'no {error}' if isinstance(error, KeyError) else str(error) or type(error).__name__
    raise UserError(
      f'reference {path} cannot be used: {what}; fetch it again, or remove it and it is made again.'
    ) from None
  return Reference(
    path,
    weights.sha256(path),
    arrays['mu'],
    arrays['sigma'],
    spatial,
    rows,
    n,
    settings,
    'arr_0' in arrays,
  )


def of_features(path: str | Path, found: Features) -> Reference:
  """The reference that features of images at `path` make; its sha256 is the pixels'."""
  spatial = (found.spatial.mean, found.spatial.cov) if found.spatial is not None else None
  mean, cov, n = found.moments.mean, found.moments.cov, found.moments.n
  return Reference(Path(path), found.fingerprint, mean, cov, spatial, found.kept, n)


def write(path: str | Path, found: Features, settings: dict) -> None:
  """Writes our own format. settings: what `check` compares, as JSON."""
  arrays = {'mu': found.moments.mean, 'sigma': found.moments.cov, 'n': found.moments.n}
  if found.spatial is not None:
    arrays |= {'mu_s': found.spatial.mean, 'sigma_s': found.spatial.cov}
  settings = {'version': VERSION} | settings
  arrays |= {'features': found.kept, 'settings': np.array(json.dumps(settings))}
  with files.atomic(path) as file:
    np.savez(file, digest=digest_of(arrays), **arrays)


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
  """The sha256 of all that a file of ours holds."""
  found = hashlib.sha256()
  for name, array in sorted(arrays.items()):
    array = np.ascontiguousarray(array)
    found.update(f'{name} {array.dtype.str} {array.shape}'.encode() + array.tobytes())
  return found.hexdigest()


def check(reference: Reference, settings: dict, dim: int) -> None:
  """Raises UserError, naming both sides, unless features (n, dim) under `settings` compare with it.

  Files of other programs do not say how they were made: of them only the dimension is compared.
  """
  for key, ours in settings.items():
    theirs = reference.settings.get(key, ours)
    if theirs != ours:
      raise UserError(
        f'{key}: the samples have {ours}, the reference {reference.path} has {theirs}; '
        'make the reference again with the settings of the samples.'
      )
  if reference.mean.size != dim:
    raise UserError(
      f'{settings.get("extractor", "the extractor")} gives {dim} features, '
      f'the reference {reference.path} has {reference.mean.size}; use one of this extractor.'
    )
  if reference.features is not None:
    n = len(reference.features)
    check_enough(n, f'the reference {reference.path} has features of {n} images')


def _check_digest(arrays: dict) -> None:
  """Takes the digest out of what a file held; ValueError unless it is of the rest.

  Files of other programs have no digest, nor `settings`; ours of before version 3 no version in it.
  """
  digest = arrays.pop('digest', None)
  if digest is None:
    if 'version' in str(arrays.get('settings', '')):
      raise ValueError('its digest is missing')
  elif str(digest) != digest_of(arrays):
    raise ValueError('its digest is of other contents')


def _checked(name: str, array: np.ndarray) -> np.ndarray:
  array = np.asarray(array)
  if array.dtype.kind != 'f' or not np.isfinite(array).all():
    raise UserError(f'{name} is not an array of finite floats')
  return array if name == 'features' else array.astype(np.float64)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
  """All arrays but images, of which only the presence counts here."""
  with np.load(path, allow_pickle=False) as arrays:
    return {k: None if k == 'arr_0' else arrays[k] for k in arrays.files if k != 'arr_1'}


def _read_pkl(path: Path) -> dict[str, np.ndarray]:
  with path.open('rb') as file:
    content = _ArrayUnpickler(file).load()
  n = {'n': content['num_images']} if 'num_images' in content else {}
  return {'mu': content['fid']['mu'], 'sigma': content['fid']['sigma'], **n}


class _ArrayUnpickler(pickle.Unpickler):
  """Knows NumPy arrays of plain numbers; refuses every other name."""

  def find_class(self, module: str, name: str):
    known = {'_reconstruct': _new_array, 'ndarray': np.ndarray, 'dtype': _plain_dtype}
    if module in ('numpy', 'numpy.core.multiarray', 'numpy._core.multiarray') and name in known:
      return known[name]
    if (module, name) == ('_codecs', 'encode'):  # bytes, in protocol 2 and older
      return lambda text, encoding: text.encode('latin1')
    raise pickle.UnpicklingError(f'refused: it asks for {module}.{name}, which is not an array')


def _new_array(*_) -> np.ndarray:
  return np.empty(0)  # pickle fills in shape, type and numbers


def _plain_dtype(name: str, *_) -> np.dtype:
  if name not in ('f4', 'f8', 'i4', 'i8'):
    raise pickle.UnpicklingError(f'refused: an array of {name}')
  return np.dtype(name, copy=True)
