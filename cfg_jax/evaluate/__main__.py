"""samples → metrics: of a run, or of images from anywhere; and the references for either.

  python -m cfg_jax.evaluate run --workdir runs/digits/p_uncond=0.1 [--w 0,1 --num_samples 1000]
  python -m cfg_jax.evaluate held_out --workdir runs/vdm_digits/schedule=network
  python -m cfg_jax.evaluate samples anything.npz --reference VIRTUAL_imagenet64_labeled.npz
  python -m cfg_jax.evaluate reference imagenet64 --out refs/imagenet64_train.npz
  python -m cfg_jax.evaluate audit --workdir runs/digits/p_uncond=0.1 [--num_samples 500]

run: adds a line to the run's evals.jsonl for every sample set that has none yet. Settings not given
are the run's own. The word may be left out. Where the Inception weights that the run's config
wants are not at hand it says so in one line, adds nothing, and ends with exit code 0. A run with
data.held_out is also scored on the images that its training has not seen: a line in scores.jsonl.
held_out: that alone, and on `validation` or `test` where nothing was held out. A classifier has its
accuracy, all else bits per dimension, given the class and not, and how well they classify.
samples: prints one line of JSON for an .npz or a folder of pictures.
reference: writes the statistics of a data set, or of any images, to be given as --reference.
audit: what a network's two predictions know of the class, by λ, against ln C, and the band that has
80 % of it; of so many training images, without samples. A line in audits.jsonl.

--as_adm computes IS, precision and recall as the evaluator of ADM does: see as_adm.py. Of a run, it
takes samples that `generate --as_adm` has drawn. --extractor=FOLDER is a classifier's run, and
--extractor=MODULE:CLASS a network of your own: see extractors/__init__.py.

If one is killed, give the same command again and it goes on where it was.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import ml_collections
from absl import flags

from cfg_jax import methods
from cfg_jax.core import command, runtime, steps
from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.core.errors import UserError
from cfg_jax.evaluate import audit as audit_lib
from cfg_jax.evaluate import extractors, held_out, make_reference, owners, scoring
from cfg_jax.evaluate.extractors import EXTRACTORS
from cfg_jax.evaluate.extractors.weights import NotAtHand
from cfg_jax.evaluate.features import Extractor
from cfg_jax.evaluate.runs import evaluate
from cfg_jax.generate.__main__ import config_of_flags, define_sample_flags
from cfg_jax.generate.store import sample_sets


def run(given: flags.FlagValues) -> None:
  """Evaluates sample sets of a run, by default at its newest checkpoint."""
  if not given.workdir:
    raise UserError('run needs --workdir: the run, as cfg_jax.train left it.')
  ways = ['sample.quantisation=truncate', 'evaluate.as_adm=true'] if given.as_adm else []
  config, workdir = config_of_flags(*ways), Path(given.workdir)
  if given.extractor and methods.draws(config):
    config = config_lib.change(config, [f'evaluate.extractor={given.extractor}'])
  config_lib.check(config, owners.of(config), 1)
  if not methods.draws(config):
    held_out_images(given)
    return
  runtime.setup_jax(config.sample.batch_size)
  step = _newest(config.sample, workdir) if given.step is None else given.step
  try:
    extractor = _extractor(given, config.evaluate.extractor)
  except NotAtHand as error:
    if given.extractor:  # it was asked for
      raise
    print(
      f'No metrics: {error}. All else goes on: '
      f'python -m cfg_jax.report --workdir {workdir} shows samples and training.',
      file=sys.stderr,
    )
  else:
    evaluate(config, workdir, step, extractor=extractor, reference_path=given.reference)
  held_out.score_kept(config, workdir, step)


def held_out_images(given: flags.FlagValues) -> None:
  """Scores a run, by default its newest checkpoint, on images that its training has not seen."""
  if not given.workdir:
    raise UserError('held_out needs --workdir: the run, as cfg_jax.train left it.')
  for flag in ('reference', *_NETWORK):
    if given[flag].present:
      raise UserError(f'{given.workdir} is scored without samples: leave out --{flag}.')
  config = config_of_flags()
  config_lib.check(config, owners.of(config), 1)
  runtime.setup_jax(held_out.BATCH, channels=config.model.channels)
  print(held_out.told(held_out.score(config, Path(given.workdir), given.step)))


def _newest(sample: ml_collections.ConfigDict, workdir: Path) -> int:
  """The newest intact checkpoint, which is the one that `generate` draws from.

  A checkpoint with samples was intact; only one without is read.
  """
  newest = steps.newest(workdir)
  if any(sample_set.present(workdir) for sample_set in sample_sets(sample, newest)):
    return newest
  checkpoints = Checkpoints(workdir)
  step = checkpoints.newest_intact()
  checkpoints.close()
  if step is None:
    raise UserError(f'{workdir / "checkpoints"} has no intact checkpoint: see cfg_jax.train.')
  if step < newest:
    print(f'{workdir / "checkpoints" / str(newest)} is damaged; step {step} is evaluated.')
  return step


def samples(given: flags.FlagValues, path: str) -> None:
  """Prints the metrics of images from anywhere."""
  if not given.reference:
    raise UserError('samples needs --reference: statistics, or images, to compare with.')
  runtime.setup_jax()
  beside = Path(path).absolute()
  can_write = os.access(beside.parent, os.W_OK)
  with _line_on_stdout() as line:
    line |= scoring.score(
      path,
      given.reference,
      _extractor(given),
      num_samples=given.num_samples,
      quantisation=given.quantisation,
      resume=beside.with_name(f'{beside.name}.unfinished') if can_write else None,
      as_adm=given.as_adm,
    )


def reference(given: flags.FlagValues, what: str) -> None:
  """Writes a reference, and prints what it is of."""
  if not given.out:
    raise UserError('reference needs --out: the .npz to write.')
  runtime.setup_jax()
  with _line_on_stdout() as line:
    line |= make_reference.make(
      what,
      given.out,
      _extractor(given),
      data_dir=given.data_dir,
      quantisation=given.quantisation,
    )


def audit(given: flags.FlagValues) -> None:
  """Audits the two predictions of a run's network, by default at its newest checkpoint."""
  if not given.workdir:
    raise UserError('audit needs --workdir: the run, as cfg_jax.train left it.')
  config = config_of_flags()
  config_lib.check(config, owners.of(config), 1)
  if config.method.name != 'classifier_free':
    what = f'a run of {config.method.name}: audit one of classifier_free'
    raise UserError(f'{given.workdir} is {what}.')
  runtime.setup_jax(2 * audit_lib.BATCH, channels=config.model.channels)
  line = audit_lib.audit(config, Path(given.workdir), given.step, given.num_samples)
  print(audit_lib.told(line))


class Command(NamedTuple):
  """What the first word names."""

  call: Callable[..., None]
  words: tuple[str, ...]  # that come after it
  flags: tuple[str, ...]


_NETWORK = ('extractor', 'resize', 'unknown_weights')
_OF_RUN = ('workdir', 'step', 'w', 'num_samples', 'set', 'reference', 'as_adm', *_NETWORK)
_OF_SAMPLES = ('reference', 'num_samples', 'quantisation', 'as_adm', *_NETWORK)
_OF_REFERENCE = ('out', 'data_dir', 'quantisation', *_NETWORK)
COMMANDS = {
  'run': Command(run, (), _OF_RUN),
  'held_out': Command(held_out_images, (), ('workdir', 'step', 'set')),
  'samples': Command(samples, ('PATH',), _OF_SAMPLES),
  'reference': Command(reference, ('NAME_OR_PATH',), _OF_REFERENCE),
  'audit': Command(audit, (), ('workdir', 'step', 'num_samples', 'set')),
}


def main(argv: list[str]) -> None:
  """The command; without a word, `run`."""
  name, *words = argv[1:] or ['run']
  if name not in COMMANDS:
    *others, last = (' '.join([word, *known.words]) for word, known in COMMANDS.items())
    raise UserError(f'{name!r} is no command: use {", ".join(others)} or {last}.')
  chosen, given = COMMANDS[name], flags.FLAGS
  if len(words) != len(chosen.words):
    takes = ' '.join([name, *chosen.words])
    raise UserError(f'{" ".join([name, *words])}: what it takes is {takes}, and flags.')
  for flag in {*_OF_RUN, *_OF_SAMPLES, *_OF_REFERENCE} - {*chosen.flags}:
    if given[flag].present:
      raise UserError(f'{name} does not take --{flag}: leave it out, or see --help.')
  chosen.call(given, *words)


def define_flags() -> None:
  """The flags of all, those of `generate` among them."""
  define_sample_flags()
  for name in ('workdir', 'step', 'w', 'num_samples', 'set'):
    flags.declare_key_flag(name)  # for --help
  flags.DEFINE_string('reference', None, 'Statistics, or images, to compare with.')
  flags.DEFINE_string('out', None, 'The reference to write, an .npz.')
  names = ', '.join(EXTRACTORS)
  flags.DEFINE_string('extractor', None, f"{names}, a classifier's run or MODULE:CLASS.")
  flags.DEFINE_boolean('as_adm', False, "IS, precision, recall as ADM's evaluator computes them.")
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
  flags.DEFINE_string('data_dir', '~/tensorflow_datasets', 'Where the data sets are.')


def _extractor(given: flags.FlagValues, default: str = 'inception') -> Extractor:
  name = given.extractor or default
  for flag in ('resize', 'unknown_weights'):
    if name != 'inception' and given[flag].present:
      raise UserError(f"--{flag} is Inception's, and this is the {name} extractor: leave it out.")
  options = {'resize': given.resize, 'unknown_weights': given.unknown_weights}
  return extractors.make(name, **options if name == 'inception' else {})


@contextlib.contextmanager
def _line_on_stdout() -> Iterator[dict]:
  """A dict to fill, printed as JSON at the end; what else is printed goes to stderr."""
  line = {}
  with contextlib.redirect_stdout(sys.stderr):
    yield line
  print(json.dumps(line))


if __name__ == '__main__':
  define_flags()
  command.run(main, words=True)
