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
from cfg_jax.core.checkpoint import restore_params
from cfg_jax.core.progress import Progress
from cfg_jax.core.versions import VERSION
from cfg_jax.data import batches, prepared, registry

BATCH = 256
SEED = 0  # of the noise that the images are scored in


def score(config: ml_collections.ConfigDict, workdir: Path, step: int | None = None) -> dict:
  """Adds to workdir/scores.jsonl a line of the newest intact checkpoint's EMA, or that of `step`.

  The line, which is returned, has the mean of each of the method's scores over all held-out images
  (see `registry.open_held_out`) under 'metrics', and its standard error under 'errors'. What is
  there already is not computed again. Raises UserError where nothing was held out, or config is not
  the run's.
  """
  workdir = Path(workdir)
  config_lib.check_unchanged(config, workdir / 'config.json')
  name, source = registry.open_held_out(config.data)
  mesh = sharding.data_mesh()
  step, params = restore_params(methods.abstract_params(config, mesh), workdir, step, mesh)
  line = {'version': VERSION, 'run': workdir.resolve().name, 'step': step}
  line |= {'dataset': config.data.name, 'images': name, 'n': len(source), 'seed': SEED}
  line['fingerprint'] = prepared.fingerprint(source)
  if methods.draws(config):  # some scores are of what is drawn with it
    line['sampler'] = config.sample.sampler.to_dict()
  line = json.loads(json.dumps(line))  # as it is read again
  path = workdir / 'scores.jsonl'
  lines = evals.read(path)
  for known in lines:
    if {k: v for k, v in known.items() if k not in ('metrics', 'errors')} == line:
      return known
  values = _values(config, params, source, mesh, Progress(f'score {line["run"]}', len(source)))
  line['metrics'] = {k: float(np.mean(v)) for k, v in values.items()}
  line['errors'] = {k: float(np.std(v) / math.sqrt(len(v))) for k, v in values.items()}
  lines.append(line)
  evals.write(path, lines)
  return line


def score_kept(config: ml_collections.ConfigDict, workdir: Path, step: int | None) -> None:
  """`score`, told on stdout, of a run whose config keeps images out of training, and no other."""
  if config.data.get('held_out', 0):
    print(told(score(config, workdir, step)), flush=True)


def _values(config, params, source, mesh, progress):
  """Each score of each image, (N,); an image's noise depends on its index alone."""
  split, everywhere = sharding.batch(mesh), sharding.replicated(mesh)

  def of_batch(params, batch, indices):
    key = jax.random.key(SEED)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
    return methods.make(config, mesh).score(params, batch, keys)

  scored = jax.jit(of_batch, in_shardings=(everywhere, split, split), out_shardings=split)
  size, found = -(-min(BATCH, len(source)) // mesh.size) * mesh.size, []
  for first in range(0, len(source), size):
    indices = np.arange(first, first + size)
    there = np.minimum(indices, len(source) - 1)  # the last batch is filled up
    batch = batches.of_examples(source.__getitems__(there.tolist()))
    placed = jax.device_put((batch, indices.astype(np.int32)), split)
    part = {k: np.asarray(v) for k, v in scored(params, *placed).items()}
    n = min(size, len(source) - first)
    found.append({k: v[:n] for k, v in part.items()})
    progress.update(n)
  progress.done()
  return {k: np.concatenate([part[k] for part in found]) for k in found[0]}


def told(line: dict) -> str:
  """A line of scores.jsonl as text, a score a line with its standard error."""
  scores = (f'  {k:<20}{line["metrics"][k]:.4f} ± {line["errors"][k]:.4f}' for k in line['metrics'])
  head = f'{line["run"]}, step {line["step"]}: {line["n"]} images of {line["dataset"]}'
  return '\n'.join([f'{head} ({line["images"]})', *scores])
