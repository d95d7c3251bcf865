"""Trained weights inside the package: `generate --pretrained digits`.

`python -m experiments.make_pretrained` makes such a file of a run: its EMA weights in float16, its
config, and where they are from.
"""

import hashlib
import io
import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import files, imported, sharding
from cfg_jax.core.errors import UserError

SHA256 = {  # of weights/NAME.npz
  'digits': 'ce0bce2aba2356d112ea9e54a880ec62db8c2900f19bb548ca0dcaaab9125e53'
}
MARK = 'pretrained.json'  # in a work directory: which weights it holds


class Pretrained(NamedTuple):
  """Weights, and what must be known to draw with them."""

  config: ml_collections.ConfigDict  # the run's own, locked
  step: int
  source: dict[str, Any]  # run, versions, loss, digest of the file
  weights: dict[str, np.ndarray]  # float32, by names as in a checkpoint: 'network.conv_in.kernel'


def read(name: str) -> Pretrained:
  """The weights called `name`; UserError where there are none, or the file is not the one known."""
  if name not in SHA256:
    raise UserError(f'--pretrained={name} is none of {", ".join(SHA256)}.')
  data = (resources.files('cfg_jax.generate') / 'weights' / f'{name}.npz').read_bytes()
  if (found := hashlib.sha256(data).hexdigest()) != SHA256[name]:
    raise UserError(f'{name}.npz of the package has sha256 {found}: install cfg_jax again.')
  return unpack(data)


def pack(pretrained: Pretrained) -> bytes:
  """The file of some weights, rounded to float16: the same bytes for the same weights."""
  record = pretrained._asdict() | {'config': json.loads(pretrained.config.to_json())}
  del record['weights']
  halves = {name: np.float16(x) for name, x in pretrained.weights.items()}
  assert all(np.isfinite(x).all() for x in halves.values()), 'a weight is beyond float16'
  buffer = io.BytesIO()
  np.savez_compressed(buffer, record=np.frombuffer(json.dumps(record).encode(), np.uint8), **halves)
  return buffer.getvalue()


def unpack(data: bytes) -> Pretrained:
  """What `pack` was given, but for rounding; `source` tells the file's sha256 as well."""
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    weights = {name: np.float32(arrays[name]) for name in arrays.files if name != 'record'}
    record = json.loads(bytes(arrays['record']))
  source = record['source'] | {'sha256': hashlib.sha256(data).hexdigest()}
  config = config_lib.of_dict(record['config'], 'a file of weights')
  return Pretrained(config, record['step'], source, weights)


def params(pretrained: Pretrained, config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The weights as parameters by player, as the method of config has them."""
  abstract = methods.abstract_params(config, sharding.data_mesh(jax.local_devices()[:1]))
  paths, tree = jax.tree_util.tree_flatten_with_path(abstract)
  names = [jax.tree_util.keystr(path, simple=True, separator='.') for path, _ in paths]
  return jax.tree.unflatten(tree, [pretrained.weights[name] for name in names])


def make_run(name: str, workdir: Path) -> None:
  """Makes a run that holds the weights, for every command that takes one, unless it is there.

  Raises UserError where the folder holds anything else.
  """
  pretrained, workdir = read(name), Path(workdir)
  mark = workdir / MARK
  if not mark.exists() or files.read_json(mark) != pretrained.source:
    imported.check_new(workdir)
    files.write_json(mark, pretrained.source)
  if not (workdir / 'config.json').exists():
    shutil.rmtree(workdir / 'checkpoints', ignore_errors=True)  # of a start that was cut short
    ema = params(pretrained, pretrained.config)
    imported.write(pretrained.config, pretrained.step, ema, workdir, pretrained.source)
