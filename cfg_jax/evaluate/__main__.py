"""samples → evals.jsonl: one line for every sample set, each number with its provenance.

  python -m cfg_jax.evaluate --workdir runs/digits/p_uncond=0.1 [--w 0,1 --num_samples 1000]
  python -m cfg_jax.evaluate --samples anything.npz --reference VIRTUAL_imagenet64_labeled.npz
  python -m cfg_jax.evaluate --make_reference imagenet64 --out refs/imagenet64_train.npz

1. Of a run, settings not given are its own, and what has a line already is not evaluated again.
2. Samples from elsewhere (.npz, a folder of pictures) give one JSON line on stdout.
3. A reference holds the statistics of a data set, or of any images, for --reference of 1 and 2.

Killed, each goes on where it was when the same command is given again.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

from absl import flags

from cfg_jax.core import command as cli
from cfg_jax.core import config as config_lib
from cfg_jax.core import runtime
from cfg_jax.core.checkpoint import steps_on_disk
from cfg_jax.core.errors import UserError
from cfg_jax.evaluate import scoring as external
from cfg_jax.evaluate.extractors import EXTRACTORS
from cfg_jax.evaluate.extractors.inception import Inception
from cfg_jax.evaluate.features import Extractor
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.evaluate.runs import evaluate
from cfg_jax.generate.__main__ import config_of_flags, define_sample_flags


def define_flags() -> None:
  """The command's flags, those of `generate` among them."""
  define_sample_flags()
  flags.DEFINE_string('samples', None, 'Samples from elsewhere: an .npz or a folder of pictures.')
  flags.DEFINE_string('make_reference', None, 'A data set, or images, to make a reference of.')
  flags.DEFINE_string('reference', None, 'Statistics, or images, to compare with.')
  flags.DEFINE_string('out', None, 'The reference to write, an .npz.')
  flags.DEFINE_enum(
    'extractor', None, list(EXTRACTORS), "By default the run's own; inception for other samples."
  )
  flags.DEFINE_enum(
    'resize',
    'tf1',
    ['tf1', 'half_pixel'],
    "Inception's: as ADM and torch-fidelity, or pytorch-fid.",
  )
  flags.DEFINE_boolean(
    'unknown_weights', False, 'Allows Inception weights of another sha256; nothing is called FID.'
  )
  flags.DEFINE_enum(
    'quantisation', None, ['round', 'truncate'], 'How images from elsewhere became uint8, if known.'
  )
  flags.DEFINE_string(
    'data_dir', '~/tensorflow_datasets', 'Where --make_reference finds data sets.'
  )


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  given = flags.FLAGS
  if sum(bool(given[name].value) for name in ('workdir', 'samples', 'make_reference')) != 1:
    raise UserError('give one of --workdir, --samples and --make_reference: see --help.')
  if given.workdir:
    _of_run(given)
    return
  runtime.setup_jax()
  with contextlib.redirect_stdout(sys.stderr):  # progress: stdout is for the line alone
    line = _of_samples(given) if given.samples else _reference(given)
  print(json.dumps(line))


def _of_run(given: flags.FlagValues) -> None:
  config, workdir = config_of_flags(), Path(given.workdir)
  runtime.setup_jax(config.sample.batch_size)
  config_lib.check(config, OWNERS, 1)
  steps = steps_on_disk(workdir)
  if not steps:
    raise UserError(f'{workdir} has no checkpoint: train first.')
  evaluate(
    config,
    workdir,
    given.step or steps[-1],
    extractor=_extractor(given, config.evaluate.extractor),
    reference_path=given.reference,
  )


def _of_samples(given: flags.FlagValues) -> dict:
  if not given.reference:
    raise UserError('--samples needs a --reference: statistics, or images, to compare with.')
  path = Path(given.samples).absolute()
  return external.evaluate(
    given.samples,
    given.reference,
    _extractor(given),
    num_samples=given.num_samples and int(given.num_samples),
    quantisation=given.quantisation,
    resume=path.with_name(f'{path.name}.unfinished') if os.access(path.parent, os.W_OK) else None,
  )


def _reference(given: flags.FlagValues) -> dict:
  if not given.out:
    raise UserError('--make_reference needs --out: the .npz to write.')
  return external.make_reference(
    given.make_reference,
    given.out,
    _extractor(given),
    data_dir=given.data_dir,
    quantisation=given.quantisation,
  )


def _extractor(given: flags.FlagValues, default: str = 'inception') -> Extractor:
  name = given.extractor or default
  if name != 'inception':
    return EXTRACTORS[name]()
  return Inception(resize=given.resize, unknown_weights=given.unknown_weights)


if __name__ == '__main__':
  define_flags()
  cli.run(main)
