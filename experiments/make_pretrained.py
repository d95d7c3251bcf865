r"""Makes the weights inside the package of a trained run, in seconds.

  python -m experiments.make_pretrained --workdir runs/digits/p_uncond=0.1 \
      --out cfg_jax/generate/weights/digits.npz

Writes the EMA weights of the run's newest intact checkpoint in float16, its config, and where they
are from (the run's name, the packages' versions, its last losses, its metrics). Then prints the
file's sha256, which is to stand in cfg_jax/generate/pretrained.py, and what the rounding does: the
largest and the mean difference, in grey levels of 255, of 100 images at each w of the config.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags

from cfg_jax.core import command as cli
from cfg_jax.core import config as config_lib
from cfg_jax.core import evals, files, runtime, sharding
from cfg_jax.data import kinds, registry
from cfg_jax.generate import draw, pretrained
from cfg_jax.methods import drawing

IMAGES = 100  # that the two precisions are compared by


def of_run(workdir: Path, step: int | None = None) -> tuple[pretrained.Pretrained, dict]:
  """The weights of a run as they are in its checkpoint, and its parameters by player."""
  config = config_lib.of_run(workdir)
  step, params = draw.load_params(config, workdir, step, sharding.data_mesh())
  paths = jax.tree_util.tree_flatten_with_path(params)[0]
  weights = {
    jax.tree_util.keystr(path, simple=True, separator='.'): np.asarray(x) for path, x in paths
  }
  return pretrained.Pretrained(config, step, source(workdir, step), weights), params


def source(workdir: Path, step: int) -> dict[str, Any]:
  """Where the weights of a run's step are from."""
  record = files.read_json(workdir / 'config.json')
  losses = [x['loss'] for x in files.read_jsonl(workdir / 'metrics.jsonl') if x['step'] <= step]
  lines = [x for x in evals.read(workdir / 'evals.jsonl') if x.get('step') == step]
  return {
    'run': workdir.name,
    'versions': record['versions'],
    'loss': float(np.mean(losses[-10:])) if losses else None,  # of the last ten logged
    'metrics': [{'sample': x['settings']['sample'], 'n': x['n']} | x['metrics'] for x in lines],
  }


def differences(config: ml_collections.ConfigDict, exact: dict, rounded: dict) -> list[str]:
  """What other parameters do to the images: a line for each w."""
  sampler = drawing.make_sampler(config, sharding.data_mesh())
  indices = np.arange(IMAGES, dtype=np.int32)
  num_classes = registry.of(config.data).num_classes
  c = kinds.choose(config.sample.labels, config.sample.seed, indices, num_classes)
  lines = []
  for w in config.sample.guidance.w:
    knobs = drawing.knobs(config, np.full(IMAGES, w, np.float32))
    given = indices, c, knobs, np.uint32(config.sample.seed)
    a, b = (np.asarray(sampler(p, *given)).astype(int) for p in (exact, rounded))
    lines.append(f'w={w:g}: at most {np.abs(a - b).max()}, {np.abs(a - b).mean():.3f} on average')
  return lines


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  runtime.setup_jax(IMAGES)
  weights, exact = of_run(Path(flags.FLAGS.workdir), flags.FLAGS.step)
  data = pretrained.pack(weights)
  with files.atomic(flags.FLAGS.out) as file:
    file.write(data)
  unpacked = pretrained.unpack(data)
  print(f'{flags.FLAGS.out}: {len(data) / 1e6:.2f} MB, step {weights.step}')
  print(json.dumps(weights.source))
  print(f'SHA256 in cfg_jax/generate/pretrained.py: {hashlib.sha256(data).hexdigest()}')
  print('float16 beside float32, in grey levels:')
  for line in differences(weights.config, exact, pretrained.params(unpacked, weights.config)):
    print(f'  {line}', flush=True)


def define_flags() -> None:
  """The command's flags."""
  flags.DEFINE_string('workdir', None, 'The run, as cfg_jax.train left it.', required=True)
  flags.DEFINE_integer('step', None, 'The checkpoint; by default the newest intact one.')
  flags.DEFINE_string('out', None, 'The .npz to write.', required=True)


if __name__ == '__main__':
  define_flags()
  cli.run(main)
