"""Evaluation of the digits: a good classifier, numbers that are what they say, none redone."""

import ast
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core import evals
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.evaluate import features, make_reference, metrics, real, scoring
from cfg_jax.evaluate.extractors.digits import DigitsExtractor, logits_and_features
from cfg_jax.evaluate.runs import evaluate
from cfg_jax.generate.draw import generate
from cfg_jax.generate.store import SampleSet, sample_sets
from cfg_jax.train import loop as train
from experiments import train_digits_classifier
from tests.conftest import ROOT


def test_the_shipped_classifier_is_right_on_98_percent_of_held_out_digits():
  _, (images, labels) = train_digits_classifier.split()
  assert len(images) == 360
  accuracy = np.mean(DigitsExtractor()(images)['logits'].argmax(axis=1) == labels)
  assert accuracy >= 0.98


def test_features_do_not_depend_on_the_batch():
  (images, _), _ = train_digits_classifier.split()
  extractor = DigitsExtractor()
  whole = extractor(images[:700])
  parts = [extractor(images[a:b]) for a, b in ((0, 1), (1, 501), (501, 700))]
  for name in ('features', 'logits'):
    np.testing.assert_allclose(np.concatenate([p[name] for p in parts]), whole[name], atol=1e-5)
  with pytest.raises(ValueError, match='float32'):
    extractor(images.astype(np.float32))


def test_the_features_are_those_of_the_weights():
  extractor = DigitsExtractor()
  images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
  logits, features = logits_and_features(extractor._params, jnp.asarray(images))
  out = extractor(images)
  np.testing.assert_allclose(out['logits'], logits, rtol=1e-4, atol=1e-4)
  assert features.shape == (3, 64) and out['features'].shape == (3, 64)


@pytest.fixture
def evaluated(tiny, tmp_path):
  tiny.train.num_steps = 4
  train.train(tiny, tmp_path)
  step = generate(tiny, tmp_path)
  evaluate(tiny, tmp_path, step)
  return tiny, tmp_path, step


def lines(workdir):
  return [json.loads(line) for line in (workdir / 'evals.jsonl').read_text().splitlines()]


class Idle(DigitsExtractor):
  """Has nothing to do."""

  def __call__(self, images):
    raise AssertionError('nothing is left to evaluate, not even a reference')


def test_every_line_has_its_provenance_and_is_written_once(evaluated):
  config, workdir, step = evaluated
  found = lines(workdir)
  samples = [line['settings']['sample'] for line in found]
  assert [sample['guidance']['w'] for sample in samples] == list(config.sample.guidance.w)
  for line, sample, sample_set in zip(found, samples, sample_sets(config.sample, step)):
    assert line['version'] == 3 and line['run'] == workdir.name and line['dataset'] == 'digits'
    assert line['step'] == step and line['seed'] == 0 and line['n'] == config.sample.num_samples
    assert line['settings']['method'] == {'name': 'classifier_free', 'p_uncond': 0.1}
    assert sample['sampler'] == config.sample.sampler.to_dict()
    assert sample['guidance'] | {'w': 0} == {'pair': 'null', 'rule': 'classifier_free', 'w': 0}
    assert (sample['ema'], sample['labels'], sample['seed']) == (True, 'balanced', 0)
    identity = json.loads((workdir / line['samples'] / 'identity.json').read_text())
    assert identity == {'step': step, 'sample': sample} and line['samples'] == sample_set.path
    assert line['extractor'] == 'digits' and line['distance'] == 'FD-digits'
    assert line['resize'] == 'none' and line['quantisation'] == 'round'
    assert line['extractor_sha256'] == DigitsExtractor().sha256
    assert line['reference'] == 'digits-train' and line['reference_n'] == 1797
    assert line['metrics'].keys() == {
      *('FD-digits', 'IS', 'IS_std', 'KID', 'KID_std', 'precision', 'recall'),
      *('density', 'coverage', 'accuracy'),
    }
  before = (workdir / 'evals.jsonl').stat().st_mtime_ns
  evaluate(config, workdir, step, extractor=Idle())
  assert (workdir / 'evals.jsonl').stat().st_mtime_ns == before
  config.sample.guidance.w = (0.0, 1.0, 2.0)
  generate(config, workdir)
  evaluate(config, workdir, step)
  assert (
    lines(workdir)[:2] == found and lines(workdir)[2]['settings']['sample']['guidance']['w'] == 2.0
  )


def test_settings_that_are_lists_are_not_evaluated_again(tiny, tmp_path):
  """JSON has no tuples."""
  tiny.sample.guidance.w = (1.0,)
  with tiny.unlocked():
    tiny.sample.guidance.interval = (-5.0, 5.0)
  (images, labels), _ = train_digits_classifier.split()
  [sample_set] = sample_sets(tiny.sample, 0)
  sample_set.write(tmp_path, 0, images[:20], labels[:20].astype(np.int32))
  for extractor in (DigitsExtractor(), Idle()):
    evaluate(tiny, tmp_path, 0, extractor=extractor)
  [line] = lines(tmp_path)
  assert line['settings']['sample']['guidance']['interval'] == [-5, 5]


def test_a_config_that_is_not_the_runs_is_refused(tiny, tmp_path):
  config_lib.record(tiny, tmp_path)
  tiny.seed = 1
  with pytest.raises(ValueError, match='(?s)made by another config.*seed: 0 → 1'):
    evaluate(tiny, tmp_path, 0)


def test_nothing_is_imported_before_it_is_asked_for():
  program = 'import sys\nimport cfg_jax.evaluate.runs\nprint(list(sys.modules))\n'
  done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
  loaded = ast.literal_eval(done.stdout)
  extractors = {f'cfg_jax.evaluate.extractors.{name}' for name in ('digits', 'inception')}
  assert not {*loaded} & {'jax', 'orbax', *extractors}


def test_the_numbers_are_those_of_the_images(evaluated):
  config, workdir, step = evaluated
  line = lines(workdir)[1]
  sample_set = sample_sets(config.sample, step)[1]
  images = np.concatenate([images for images, _ in sample_set.read(workdir, 20)])
  out = DigitsExtractor()(images)
  source = registry.open_source(config.data)
  real = DigitsExtractor()(np.stack([source[i]['image'] for i in range(len(source))]))['features']
  real, fake = real.astype(np.float64), out['features'].astype(np.float64)
  distance = metrics.frechet_distance(fake.mean(0), np.cov(fake.T), real.mean(0), np.cov(real.T))
  np.testing.assert_allclose(line['metrics']['FD-digits'], distance, rtol=1e-6)
  accuracy = np.mean(out['logits'].argmax(axis=1) == np.arange(20) % 10)
  np.testing.assert_allclose(line['metrics']['accuracy'], accuracy)


def test_real_digits_score_near_the_best(tiny, tmp_path):
  """1 000 real digits against all: a small distance, IS near 10, precision and coverage near 1."""
  (images, labels), _ = train_digits_classifier.split()
  order = np.random.RandomState(0).permutation(len(images))
  images, labels = images[order], labels[order]
  tiny.sample.num_samples, tiny.sample.guidance.w = 1000, (0.0,)
  [sample_set] = sample_sets(tiny.sample, 0)
  assert isinstance(sample_set, SampleSet)
  sample_set.write(tmp_path, 0, images[:1000], labels[:1000].astype(np.int32))
  evaluate(tiny, tmp_path, 0)
  found = lines(tmp_path)[0]['metrics']
  assert found['FD-digits'] < 5 and found['IS'] > 9.3 and found['accuracy'] > 0.99
  assert found['precision'] > 0.9 and found['coverage'] > 0.9


def test_missing_samples_are_an_error(tiny, tmp_path):
  with pytest.raises(ValueError, match='has 0 of 20 samples'):
    evaluate(tiny, tmp_path, 4)


def test_an_interrupted_set_goes_on_where_it_was(tiny, tmp_path, monkeypatch, capsys, interrupted):
  """Killed at the second file of the second set: the first set's line and file are not redone."""
  monkeypatch.setattr(features, 'SAVE_SECONDS', -1)
  small = functools.partialmethod(SampleSet.read, batch_size=10)
  monkeypatch.setattr(SampleSet, 'read', small)
  (images, labels), _ = train_digits_classifier.split()
  for sample_set in sample_sets(tiny.sample, 0):
    for i in (0, 10):
      part = slice(i, i + 10)
      sample_set.write(tmp_path, i, images[part] // int(1 + sample_set.w), labels[part])
  straight = tmp_path / 'straight'
  shutil.copytree(tmp_path / 'samples', straight / 'samples')
  evaluate(tiny, straight, 0)
  interrupted.most = 35
  with pytest.raises(KeyboardInterrupt):
    evaluate(tiny, tmp_path, 0, extractor=interrupted())
  assert len(lines(tmp_path)) == 1
  capsys.readouterr()
  interrupted.seen, interrupted.most = 0, np.inf
  evaluate(tiny, tmp_path, 0, extractor=interrupted())
  assert interrupted.seen == 10
  assert f'evaluate {tmp_path.name}: 20/20 images' in capsys.readouterr().out
  ours, theirs = (evals.read(folder / 'evals.jsonl') for folder in (tmp_path, straight))
  assert [line | {'run': 'straight'} for line in ours] == theirs
  assert not list(tmp_path.rglob('*unfinished*'))


def test_what_real_images_score_is_left_beside_the_lines(evaluated):
  config, workdir, step = evaluated
  [told], notes = real.read(workdir)
  assert notes == [] and (told['n'], told['of'], told['seed']) == (20, 1797, 0)
  [line, _] = lines(workdir)
  assert all(told[k] == line[k] for k in ('extractor_sha256', 'reference_sha256', 'distance'))
  assert told['metrics'].keys() == line['metrics'].keys() and told['metrics']['accuracy'] > 0.9
  source = registry.open_source(config.data)
  drawn = np.sort(np.random.RandomState(0).permutation(1797)[:20])
  for i, label, image in zip(told['indices'], told['labels'], told['images']):
    assert i in drawn and source[int(i)]['label'] == label
    np.testing.assert_array_equal(source[int(i)]['image'], image)
  again = features.stream([np.stack([source[int(i)]['image'] for i in drawn])], DigitsExtractor())
  reference = make_reference.of_dataset('digits', Path(config.data.dir), 'train', DigitsExtractor())
  error = scoring.results(again, reference, DigitsExtractor())['errors']['density']
  np.testing.assert_allclose(told['errors']['density'], error * (1 - 20 / 1797) ** 0.5)
  shutil.rmtree(workdir / 'real')  # kept beside the references too, for the other runs of a sweep
  evaluate(config, workdir, step, extractor=Idle())
  assert real.read(workdir)[0][0]['metrics'] == told['metrics']


def test_data_that_is_not_at_hand_is_said_and_the_lines_come(
  evaluated, tmp_path, monkeypatch, capsys
):
  config, workdir, step = evaluated
  reference = tmp_path / 'ours.npz'
  make_reference.make('digits', reference, DigitsExtractor(), data_dir=config.data.dir)
  shutil.rmtree(workdir / 'real')

  def none(*_):
    raise UserError('is not prepared')

  monkeypatch.setattr(registry, 'open_source', none)
  monkeypatch.setattr(real, 'SEED', 1)
  config.sample.num_samples = 10
  evaluate(config, workdir, step, reference_path=str(reference))
  assert len(lines(workdir)) == 4 and not (workdir / 'real').exists()
  assert 'nothing real to compare with: is not prepared' in capsys.readouterr().out
