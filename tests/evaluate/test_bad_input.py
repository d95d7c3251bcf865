"""The evaluate command on every bad input: one line, and nothing is overwritten."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate.extractors.digits import DigitsExtractor
from tests.evaluate.conftest import digits, of_samples


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
  """A reference that holds ours, but for `arrays`; it is of before version 3, without a digest."""

  def make(folder, monkeypatch):
    with np.load(folder / 'ours.npz') as ours:
      found = {name: ours[name] for name in ours if name != 'digest'}
    settings = {k: v for k, v in json.loads(str(found['settings'])).items() if k != 'version'}
    np.savez(folder / 'bad.npz', **found | {'settings': json.dumps(settings)} | arrays)
    return of_samples(folder, reference='bad.npz')

  return make


def changed_reference(folder, monkeypatch):
  with np.load(folder / 'ours.npz') as ours:
    np.savez(folder / 'bad.npz', **dict(ours) | {'mu': ours['mu'] + 1})
  return of_samples(folder, reference='bad.npz')


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
  'no number': (lambda folder, _: [*of_samples(folder), '--num_samples=x'], 'num_samples=x: inv'),
  'too many': (lambda folder, _: [*of_samples(folder), '--num_samples=31'], '31 of the 30'),
  'truncated': (truncated, 'bad.npz is damaged'),
  'truncated reference': (truncated_reference, 'bad.npz is damaged'),
  'NaN features': (not_finite, 'NaN or infinite features; look at the images or the weights'),
  'NaN reference': (reference(mu=np.full(64, np.nan)), 'mu is not an array of finite floats'),
  'another extractor': (
    reference(settings=OTHER),
    'extractor: the samples have digits, the reference',
  ),
  'changed reference': (changed_reference, 'its digest is of other contents'),
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
    '--extractor=vgg is none of digits, inception; name one of your own',
  ),
  'no command': (
    lambda *_: ['sample', 'x'],
    "'sample' is no command: use run, held_out, samples PATH,",
  ),
  'no path': (lambda *_: ['samples'], 'samples: what it takes is samples PATH'),
  'words left over': (lambda *_: ['run', 'x'], 'run x: what it takes is run, and flags'),
  'no workdir': (lambda *_: ['--num_samples=10'], 'run needs --workdir'),
  'a flag of another': (
    lambda folder, _: [*of_samples(folder), '--workdir=x'],
    'samples does not take --workdir',
  ),
  "a flag of Inception's": (
    lambda folder, _: [*of_samples(folder), '--resize=half_pixel'],
    "--resize is Inception's, and this is the digits extractor",
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
