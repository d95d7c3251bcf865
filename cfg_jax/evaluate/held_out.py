"""checkpoint → scores.jsonl: what a method makes of images that its training has not seen."""

import json
import math
from pathlib import Path

import jax
import ml_collections
import numpy as np

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import evals, sharding
from cfg_jax.core.progress import Progress
from cfg_jax.core.versions import VERSION
from cfg_jax.data import prepared, registry
from cfg_jax.data.batches import Batch
from cfg_jax.equations import conditioning
from cfg_jax.methods import restore

BATCH = 256
SEED = 0  # of the noise that the images are scored in


def score(config: ml_collections.ConfigDict, workdir: Path, step: int | None = None) -> dict:
  """Adds to workdir/scores.jsonl a line of the newest intact checkpoint's EMA, or that of `step`.

  A line has the mean of each of the method's scores over all held-out images (see
  `registry.open_held_out`), and its standard error. What is there already is not computed again.
  Raises UserError where nothing was held out, or config is not the run's.
  """
  config_lib.check_unchanged(config, Path(workdir) / 'config.json')
  name, source = registry.open_held_out(config.data)
  mesh = sharding.data_mesh()
  step, params = restore.restore(config, workdir, step, mesh)
  line = {'version': VERSION, 'run': Path(workdir).resolve().name, 'step': step}
  line |= {'dataset': config.data.name, 'images': name, 'n': len(source), 'seed': SEED}
  line['fingerprint'] = prepared.fingerprint(source)
  path = Path(workdir) / 'scores.jsonl'
  lines = evals.read(path)
  for known in lines:
    if {k: v for k, v in known.items() if k not in ('metrics', 'errors')} == line:
      return known
  method, split = methods.make(config, mesh), sharding.batch(mesh)
  everywhere = sharding.replicated(mesh)
  scored = jax.jit(method.score, in_shardings=(everywhere, split, everywhere))
  totals, progress = None, Progress(f'score {line["run"]}', len(source), unit='images')
  key = jax.random.key(SEED)
  size = -(-min(BATCH, len(source)) // mesh.size) * mesh.size
  for first in range(0, len(source), size):
    images = [source[i] for i in range(first, min(first + size, len(source)))]
    found = _score_exactly(scored, params, images, jax.random.fold_in(key, first), size, split)
    totals = found if totals is None else {k: totals[k] + found[k] for k in found}
    progress.update(len(images))
  progress.done()
  n = len(source)
  line['metrics'] = {k: float(v / n) for k, v in totals.items()}
  line['errors'] = {k: math.sqrt(p * (1 - p) / n) for k, p in line['metrics'].items()}
  lines.append(json.loads(json.dumps(line)))
  evals.write(path, lines)
  return line
