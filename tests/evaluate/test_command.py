"""The evaluate command as its user meets it: restarts, its one line, and every bad input."""

import json
import os
import pickle
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate import features, make_reference, scoring
from cfg_jax.evaluate.extractors import weights
from cfg_jax.evaluate.extractors.digits import DigitsExtractor
from cfg_jax.evaluate.runs import evaluate as evaluate_run
from cfg_jax.generate.draw import generate
from cfg_jax.generate.store import sample_sets
from cfg_jax.train import loop as train
from experiments import train_digits_classifier
from tests import random_inception
from tests.conftest import TINY, load_config, run


@pytest.fixture(scope='module')
def made(tmp_path_factory, data_dir):
  """good.npz, digits; ours.npz, their reference; run, samples of which only w = 0 is evaluated."""
  folder = tmp_path_factory.mktemp('made')
  np.savez(folder / 'good.npz', digits())
  ours = folder / 'ours.npz'
  make_reference.make(folder / 'good.npz', ours, DigitsExtractor(), quantisation='round')
  config = load_config('digits', **TINY, **{'data.dir': str(data_dir)})
  config_lib.record(config, folder / 'run')
  checkpoints = Checkpoints(folder / 'run', keep=1)
  checkpoints.save(4, {'step': jnp.int32(4)}, {})
  checkpoints.close()
  for sample_set in sample_sets(config.sample, 4):
    sample_set.write(folder / 'run', 0, digits(20), np.zeros(20, np.int32))
  config.sample.guidance.w = (0.0,)
  evaluate_run(config, folder / 'run', 4, reference_path=ours)
  return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
  """A copy to spoil; $CFG_JAX_INCEPTION lies in it."""
  shutil.copytree(made, tmp_path, dirs_exist_ok=True)
  monkeypatch.setenv('CFG_JAX_INCEPTION', str(tmp_path / 'weights.pth'))
  return tmp_path


def digits(n=30):
  return train_digits_classifier.split()[0][0][:n]


def of_samples(folder, samples='good.npz', reference='ours.npz'):
  words = ('samples', folder / samples)
  return [*words, '--reference', folder / reference, '--extractor=digits']


def test_samples_from_elsewhere_give_one_json_line_on_stdout(folder, call):
  done = call(evaluate, *of_samples(folder), '--num_samples', '20', '--quantisation', 'round')
  assert done.returncode == 0, done.stderr
  line = json.loads(done.stdout)
  assert (line['n'], line['quantisation']) == (20, 'round') and 'FD-digits' in line['metrics']
  assert line['reference'].endswith('good.npz') and line['reference_n'] == 30
  assert 'features digits: 20/20 images' in done.stderr
  done = call(evaluate, *of_samples(folder), '--quantisation', 'truncate')
  assert done.returncode == 2
  assert 'quantisation: the samples have truncate, the reference' in done.stderr


def test_samples_from_elsewhere_go_on_after_a_kill(folder, call, monkeypatch, interrupted):
  monkeypatch.setattr(features, 'SAVE_SECONDS', -1)
  monkeypatch.setattr(features, 'BATCH', 10)
  monkeypatch.setitem(evaluate.EXTRACTORS, 'digits', interrupted)
  straight = json.loads(call(evaluate, *of_samples(folder)).stdout)
  interrupted.seen, interrupted.most = 0, 25  # one image is looked at first
  with pytest.raises(KeyboardInterrupt):
    call(evaluate, *of_samples(folder))
  assert (folder / 'good.npz.unfinished').exists()
  interrupted.seen, interrupted.most = 0, np.inf
  assert json.loads(call(evaluate, *of_samples(folder)).stdout) == straight
  assert interrupted.seen == 11 and not (folder / 'good.npz.unfinished').exists()


class Malicious:
  """Unpickled by Python's own unpickler, it makes a folder called `executed`."""

  def __init__(self, folder):
    self.folder = folder

  def __reduce__(self):
    return os.mkdir, (str(self.folder / 'executed'),)


class NotFinite(DigitsExtractor):
  """Digits whose weights are damaged."""

  def __init__(self):
    super().__init__()
    self._params['dense1'] = self._params['dense1'] * np.nan


def spoil(array):
  """Samples that are `array`."""

  def make(folder, monkeypatch):
    np.savez(folder / 'bad.npz', array)
    return of_samples(folder, 'bad.npz')

  return make


def truncated(folder, monkeypatch):
  data = (folder / 'good.npz').read_bytes()
  (folder / 'bad.npz').write_bytes(data[: len(data) // 2])
  return of_samples(folder, 'bad.npz')


def truncated_reference(folder, monkeypatch):
  data = (folder / 'ours.npz').read_bytes()
  (folder / 'bad.npz').write_bytes(data[: len(data) // 2])
  return of_samples(folder, reference='bad.npz')


def empty_folder(folder, monkeypatch):
  (folder / 'empty').mkdir()
  return of_samples(folder, 'empty')


def grey_and_alpha(folder, monkeypatch):
  (folder / 'pictures').mkdir()
  for i, image in enumerate(digits(2)[..., 0]):
    Image.fromarray(image).convert(('L', 'LA')[i]).save(folder / f'pictures/{i}.png')
  return of_samples(folder, 'pictures')


def not_finite(folder, monkeypatch):
  monkeypatch.setitem(evaluate.EXTRACTORS, 'digits', NotFinite)
  return of_samples(folder)


def reference(**arrays):
  """A reference that holds ours, but for `arrays`."""

  def make(folder, monkeypatch):
    with np.load(folder / 'ours.npz') as ours:
      np.savez(folder / 'bad.npz', **dict(ours) | arrays)
    return of_samples(folder, reference='bad.npz')

  return make


def few_images(folder, monkeypatch):
  np.savez(folder / 'bad.npz', digits(4))
  return of_samples(folder, reference='bad.npz')


def malicious_reference(folder, monkeypatch):
  content = {'fid': {'mu': np.zeros(64), 'sigma': Malicious(folder)}}
  (folder / 'bad.pkl').write_bytes(pickle.dumps(content))
  return of_samples(folder, reference='bad.pkl')


def malicious_samples(folder, monkeypatch):
  np.savez(folder / 'bad.npz', np.array([Malicious(folder)]))
  return of_samples(folder, 'bad.npz')


def malicious_weights(folder, monkeypatch):
  (folder / 'weights.pth').write_bytes(pickle.dumps(Malicious(folder)))
  return [*of_samples(folder)[:-1], '--unknown_weights']


def other_weights(folder, monkeypatch):
  (folder / 'weights.pth').write_bytes(b'others')
  return of_samples(folder)[:-1]


def of_run(spoil, *flags):
  """The run, of which `spoil(folder, file)` damages what it likes: file has w = 1."""

  def make(folder, monkeypatch):
    (file,) = folder.glob('run/samples/*/w=1-*/*.npz')
    spoil(folder, file)
    return ['run', '--workdir', folder / 'run', '--reference', folder / 'ours.npz', *flags]

  return make


def cut(folder, file):
  file.write_bytes(file.read_bytes()[:-200])


def inception_reference(folder, file):
  arrays = {'mu': np.zeros(2048), 'sigma': np.eye(2048, dtype=np.float32)}
  np.savez(folder / 'ours.npz', **arrays)


OTHER = json.dumps({'extractor': 'inception-2015-12-05'})
BAD_INPUT = {
  'dtype': (spoil(digits() / 255), 'has float64 (30, 8, 8, 1); images are uint8'),
  'range': (spoil(digits() // 255), 'no value above 1'),
  'shape': (spoil(digits()[..., 0]), 'add a last axis of one channel'),
  'channels': (spoil(np.repeat(digits(), 4, -1)), 'drop the alpha channel'),
  'channels of a picture': (grey_and_alpha, 'has mode LA; save it as'),
  'another size': (spoil(np.repeat(digits(), 2, 1)), 'the digits extractor takes uint8 (N, 8'),
  'colour': (spoil(np.repeat(digits(), 3, -1)), 'the digits extractor takes uint8 (N, 8, 8, 1)'),
  'empty folder': (empty_folder, 'empty holds no .npz'),
  'no file': (lambda folder, _: of_samples(folder, 'none.npz'), 'none.npz does not exist'),
  'few': (lambda folder, _: [*of_samples(folder), '--num_samples=9'], 'need at least 10'),
  'too many': (lambda folder, _: [*of_samples(folder), '--num_samples=31'], '31 of the 30'),
  'truncated': (truncated, 'bad.npz is damaged'),
  'truncated reference': (truncated_reference, 'bad.npz is damaged'),
  'NaN features': (not_finite, 'NaN or infinite features; look at the images or the weights'),
  'NaN reference': (reference(mu=np.full(64, np.nan)), 'mu is not an array of finite floats'),
  'another extractor': (
    reference(settings=OTHER),
    'extractor: the samples have digits, the reference',
  ),
  'another dimension': (
    reference(mu=np.zeros(5), sigma=np.eye(5), features=np.zeros((9, 5)), settings='{}'),
    'digits gives 64 features, the reference',
  ),
  'few images': (few_images, 'bad.npz has 4 images: the metrics need at least 10'),
  'few features': (
    reference(features=np.zeros((4, 64))),
    'bad.npz has features of 4 images: the metrics need at least 10',
  ),
  'malicious reference': (malicious_reference, 'refused: it asks for posix.mkdir'),
  'malicious samples': (malicious_samples, 'object'),
  'malicious weights': (malicious_weights, 'refused: it asks for posix.mkdir'),
  'other weights': (other_weights, 'or allow unknown weights: the numbers are then not called FID'),
  'no weights': (lambda folder, _: of_samples(folder)[:-1], 'weights.pth: no such file; download'),
  'unknown extractor': (
    lambda folder, _: [*of_samples(folder), '--extractor=vgg'],
    'should be one of <digits|inception>',
  ),
  'no command': (lambda *_: ['sample', 'x'], "'sample' is no command: use run, samples PATH or"),
  'no path': (lambda *_: ['samples'], 'samples: what it takes is samples PATH'),
  'words left over': (lambda *_: ['run', 'x'], 'run x: what it takes is run, and flags'),
  'no workdir': (lambda *_: ['--num_samples=10'], 'run needs --workdir'),
  'a flag of another': (
    lambda folder, _: [*of_samples(folder), '--workdir=x'],
    'samples does not take --workdir',
  ),
  'no reference': (lambda folder, _: of_samples(folder)[:2], 'samples needs --reference'),
  'no out': (lambda *_: ['reference', 'digits'], 'reference needs --out'),
  'no run': (lambda folder, _: ['--workdir', folder], 'holds no run'),
  'out is there': (
    lambda folder, _: [
      *('reference', 'digits', '--extractor=digits', '--out', folder / 'ours.npz')
    ],
    'ours.npz exists',
  ),
  'truncated shard': (of_run(cut), 'is damaged'),
  'missing shard': (of_run(lambda _, file: file.unlink()), 'has 0 of 20 samples'),
  'more samples': (of_run(lambda *_: None, '--num_samples=21'), 'has 20 of 21 samples'),
  'damaged lines': (
    of_run(lambda folder, _: (folder / 'run/evals.jsonl').write_text('{"w": 0.\n')),
    'evals.jsonl, line 1, is not JSON',
  ),
  "a run's reference": (of_run(inception_reference), 'gives 64 features, the reference'),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line_and_nothing_is_overwritten(case, folder, call, monkeypatch):
  make, message = BAD_INPUT[case]
  flags = make(folder, monkeypatch)
  before = {path: path.is_dir() or path.read_bytes() for path in folder.rglob('*')}
  done = call(evaluate, *flags)
  assert done.returncode == 2 and done.stdout == ''
  assert message in done.stderr and done.stderr.count('\n') == 1, done.stderr
  assert {path: path.is_dir() or path.read_bytes() for path in folder.rglob('*')} == before


@pytest.mark.slow
def test_a_run_is_evaluated_by_inception_and_nothing_is_called_fid(tiny, tmp_path):
  """Random weights, real commands: train, generate, a reference, evaluate, evaluate again."""
  workdir, path, reference = tmp_path / 'run', tmp_path / 'random.pth', tmp_path / 'ref.npz'
  tiny.train.num_steps, tiny.sample.num_samples, tiny.sample.guidance.w = 4, 10, (1.0,)
  tiny.evaluate.extractor = 'inception'
  train.train(tiny, workdir)
  generate(tiny, workdir)
  random_inception.save(path, random_inception.random_state())
  np.savez(tmp_path / 'real.npz', digits(12))

  def command(*flags):
    return run('cfg_jax.evaluate', *map(str, flags), CFG_JAX_INCEPTION=str(path))

  make = ('reference', tmp_path / 'real.npz', '--out', reference)
  of_run = ('--workdir', workdir, '--reference', reference)
  for flags in (make, of_run):  # unless told otherwise
    done = command(*flags)
    assert done.returncode == 2 and weights.SHA256 in done.stderr, done.stderr
  assert not reference.exists() and not (workdir / 'evals.jsonl').exists()

  done = command(*make, '--unknown_weights', '--quantisation', 'round')
  assert done.returncode == 0, done.stderr
  assert 'Grey images: their one channel is repeated as red, green and blue.' in done.stderr
  done = command(*of_run, '--unknown_weights')
  assert done.returncode == 0, done.stderr
  (line,) = map(json.loads, (workdir / 'evals.jsonl').read_text().splitlines())
  values = line.pop('metrics')
  assert not [k for k in values if k.startswith(('FID', 'sFID'))]
  assert values.keys() >= {'FD-inception-unknown', 'sFD-inception-unknown', 'IS', 'KID', 'recall'}
  assert all(np.isfinite(v) for v in values.values())
  assert line['extractor'] == 'inception-unknown' and line['resize'] == 'tf1'
  assert line['extractor_sha256'] == weights.sha256(path)
  assert line['reference'] == str(tmp_path / 'real.npz') and line['reference_n'] == 12
  assert line['reference_sha256'] == weights.sha256(reference)
  assert (line['step'], line['n'], line['distance']) == (4, 10, 'FD-inception-unknown')
  sample = line['settings']['sample']
  assert sample['guidance']['w'] == 1.0 and sample['sampler'] == tiny.sample.sampler.to_dict()
  assert line['quantisation'] == 'round' and line['metric_settings'] == scoring.METRIC_SETTINGS

  before = (workdir / 'evals.jsonl').stat().st_mtime_ns
  done = command(*of_run, '--unknown_weights')
  assert (done.returncode, done.stdout) == (0, '')
  done = command(*of_run, '--unknown_weights', '--resize', 'half_pixel')
  assert done.returncode == 2
  assert 'resize: the samples have half_pixel, the reference' in done.stderr
  assert (workdir / 'evals.jsonl').stat().st_mtime_ns == before
