"""The evaluate command as its user meets it: restarts, and its one line."""

import json

import numpy as np
import pytest

from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate import features, scoring
from cfg_jax.evaluate.extractors import weights
from cfg_jax.generate.draw import generate
from cfg_jax.train import loop as train
from tests import random_inception
from tests.conftest import run
from tests.evaluate.conftest import digits, of_samples


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
  assert call(evaluate, *of_samples(folder)).returncode == 130
  assert (folder / 'good.npz.unfinished').exists()
  interrupted.seen, interrupted.most = 0, np.inf
  assert json.loads(call(evaluate, *of_samples(folder)).stdout) == straight
  assert interrupted.seen == 11 and not (folder / 'good.npz.unfinished').exists()


def test_without_weights_a_run_says_so_and_all_else_goes_on(folder, call, monkeypatch):
  def no_network(*args, **kwargs):
    raise OSError('no network')

  monkeypatch.delenv('CFG_JAX_INCEPTION')
  monkeypatch.setenv('XDG_CACHE_HOME', str(folder / 'empty'))
  monkeypatch.setattr(weights.urllib.request, 'urlopen', no_network)
  before = (folder / 'run/evals.jsonl').read_bytes()
  of_run = ('run', '--workdir', folder / 'run', '--set', 'evaluate.extractor=inception')
  done = call(evaluate, *of_run)
  assert (done.returncode, done.stdout, done.stderr.count('\n')) == (0, '', 1)
  assert done.stderr.startswith('No metrics: cannot fetch the Inception weights (no network)')
  assert f'python -m cfg_jax.report --workdir {folder / "run"}' in done.stderr
  for asked in ((*of_run, '--extractor=inception'), of_samples(folder)[:-1]):
    done = call(evaluate, *asked)
    assert done.returncode == 2 and done.stderr.startswith('cannot fetch')
  assert (folder / 'run/evals.jsonl').read_bytes() == before


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
