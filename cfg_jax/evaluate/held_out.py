"""checkpoint → scores.jsonl: what a method makes of images that its training has not seen."""

import math
from pathlib import Path

import ml_collections
import numpy as np

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core.checkpoint import restore_params
from cfg_jax.core.progress import Progress
from cfg_jax.core.versions import VERSION
from cfg_jax.data import prepared, registry
from cfg_jax.evaluate import each_image

BATCH = 256


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
  line |= {'dataset': config.data.name, 'images': name, 'n': len(source), 'seed': each_image.SEED}
  line['fingerprint'] = prepared.fingerprint(source)
  if methods.draws(config):  # some scores are of what is drawn with it
    line['sampler'] = config.sample.sampler.to_dict()

  def measure():
    progress = Progress(f'score {line["run"]}', len(source))
    scored, which = methods.make(config, mesh).score, np.arange(len(source))
    values = each_image.values(scored, params, source, which, BATCH, progress)
    return {
      'metrics': {k: float(np.mean(v)) for k, v in values.items()},
      'errors': {k: float(np.std(v) / math.sqrt(len(v))) for k, v in values.items()},
    }

  return each_image.once(workdir / 'scores.jsonl', line, measure)


def score_kept(config: ml_collections.ConfigDict, workdir: Path, step: int | None) -> None:
  """`score`, told on stdout, of a run whose config keeps images out of training, and no other."""
  if config.data.get('held_out', 0):
    print(told(score(config, workdir, step)), flush=True)


def told(line: dict) -> str:
  """A line of scores.jsonl as text, a score a line with its standard error."""
  scores = (f'  {k:<20}{line["metrics"][k]:.4f} ± {line["errors"][k]:.4f}' for k in line['metrics'])
  head = f'{line["run"]}, step {line["step"]}: {line["n"]} images of {line["dataset"]}'
  return '\n'.join([f'{head} ({line["images"]})', *scores])
