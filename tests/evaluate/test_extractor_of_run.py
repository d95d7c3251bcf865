"""--extractor=FOLDER: a classifier's run, known by its weights wherever it lies."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfg_jax.core import config as config_lib
from cfg_jax.core import imported, steps
from cfg_jax.core.errors import UserError
from cfg_jax.data import batches, registry
from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate import extractors, make_reference, owners
from cfg_jax.evaluate.extractors import of_run
from cfg_jax.nets import encoder
from cfg_jax.sweep import status
from cfg_jax.sweep.grid import Sampling
from tests.conftest import load_config
from tests.evaluate.conftest import digits, of_samples
from tests.raw_datasets import run as prepare

TINY = {'model.channels': 8, 'model.head_channels': 8, 'model.norm_groups': 4}


def write(data_dir, folder, seed=0, name='classifier_digits', **changes):
  """A classifier's run of random weights, none of them zero; its config and parameters."""
  changes = TINY | {'data.dir': str(data_dir), 'method.noised': False} | changes
  config = load_config(name, **changes)
  rng = np.random.default_rng(seed)
  draw = lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32)  # noqa: E731
  abstract = jax.eval_shape(lambda: encoder.create_params(encoder.of(config), 0))
  params = {'network': jax.tree.map(draw, abstract)}
  imported.write(config, 5, params, folder, {})
  return config, params['network']


@pytest.fixture
def classifier(data_dir, tmp_path):
  return write(data_dir, tmp_path / 'classifier')


def test_it_gives_what_the_network_does_of_clean_images(classifier, tmp_path, monkeypatch):
  """In whatever batches; the logits are the features' linear function."""
  config, params = classifier
  images = digits(100)
  x = batches.to_x(images)
  logits, features = jax.jit(encoder.apply_fn(encoder.of(config)))(params, x, jnp.full(100, 20.0))
  monkeypatch.setattr(of_run, 'PIXELS', 64 * 32)
  extractor = of_run.OfRun(tmp_path / 'classifier')
  found = extractor(images)
  np.testing.assert_allclose(found['features'], features, atol=2e-6, rtol=1e-5)
  np.testing.assert_allclose(found['logits'], logits, atol=2e-6, rtol=1e-5)
  last = params['head']['proj']
  again = found['features'] @ np.asarray(last['kernel']) + np.asarray(last['bias'])
  np.testing.assert_allclose(found['logits'], again, atol=1e-5)
  assert found['features'].shape == (100, extractor.dim) and found['features'].std() > 0.01
  parts = [extractor(images[a:b])['logits'] for a, b in ((0, 1), (1, 40), (40, 100))]
  np.testing.assert_array_equal(np.concatenate(parts), found['logits'])


def test_it_is_the_ema_of_the_newest_checkpoint(classifier, data_dir, tmp_path):
  """And its name is that of these weights alone."""
  same, other = tmp_path / 'same', tmp_path / 'other'
  write(data_dir, same)
  write(data_dir, other, seed=1)
  found = {name: of_run.OfRun(tmp_path / name) for name in ('classifier', 'same', 'other')}
  shas = {name: extractor.sha256 for name, extractor in found.items()}
  assert shas['classifier'] == shas['same'] != shas['other'] and len(shas['same']) == 64
  assert shas == {name: of_run.sha256(tmp_path / name) for name in found}
  assert {(e.name, e.labels_of, e.resize, e.is_public) for e in found.values()} == {
    ('digits', 'digits', 'none', False)
  }
  shutil.copytree(other / 'checkpoints' / '5', same / 'checkpoints' / '9')
  newer = of_run.OfRun(same)
  assert newer.sha256 == shas['other']
  np.testing.assert_array_equal(newer(digits(9))['logits'], found['other'](digits(9))['logits'])


def lines_of(run):
  return [json.loads(line) for line in (run / 'evals.jsonl').read_text().splitlines()]


def test_a_run_is_evaluated_by_it(classifier, data_dir, folder, call):
  """What it has measured is known by its weights; of others there are lines beside."""
  run, n = folder / 'run', len(lines_of(folder / 'run'))
  reals = len(list(folder.glob('run/real/*.npz')))

  def evaluated(where):
    done = call(evaluate, 'run', '--workdir', run, '--w=0', f'--extractor={where}')
    assert done.returncode == 0, done.stderr
    return lines_of(run)[n:]

  lines = evaluated(folder / 'classifier')
  [line] = lines
  assert line['extractor'] == 'digits' and line['distance'] == 'FD-digits'
  assert line['extractor_sha256'] == of_run.sha256(folder / 'classifier')
  assert {'FD-digits', 'IS', 'accuracy'} <= line['metrics'].keys()
  logits = of_run.OfRun(folder / 'classifier')(digits(20))['logits']
  assert line['metrics']['accuracy'] == pytest.approx(np.mean(logits.argmax(1) == 0))
  (folder / 'classifier').rename(folder / 'moved')
  assert evaluated(folder / 'moved') == lines
  write(data_dir, folder / 'other', seed=1)
  _, other = evaluated(folder / 'other')
  assert other['extractor_sha256'] != line['extractor_sha256']
  assert other['metrics']['FD-digits'] != line['metrics']['FD-digits']
  assert len(list(folder.glob('run/real/*.npz'))) == reals + 2

  config = config_lib.change(config_lib.of_run(run), ['sample.guidance.w=0'])
  for name in ('moved', 'other'):
    by = config_lib.change(config, [f'evaluate.extractor={folder / name}'])
    [seen] = status.evaluated(run, Sampling(by, 4))
    assert seen['extractor_sha256'] == of_run.sha256(folder / name)
  shutil.rmtree(folder / 'other')
  write(data_dir, folder / 'other', seed=2)
  assert not status.evaluated(run, Sampling(by, 4))


@pytest.mark.parametrize(
  'name, sha, known',
  [
    ('inception', {'extractor': 'inception-2015-12-05', 'extractor_sha256': 'ab'}, True),
    ('inception', {'extractor': 'digits', 'extractor_sha256': 'ab'}, False),
    ('digits', {'extractor': 'digits', 'extractor_sha256': 'ab'}, False),
    ('digits', {'extractor': 'digits', 'extractor_sha256': None}, True),
  ],
)
def test_what_others_have_measured_is_known_too(name, sha, known):
  if sha['extractor_sha256'] is None:
    sha['extractor_sha256'] = extractors.make('digits').sha256
  assert extractors.has_measured(name, sha) == known


def test_two_weights_are_never_compared(classifier, data_dir, folder, call):
  write(data_dir, folder / 'other', seed=1)
  reference, by = folder / 'by_classifier.npz', of_run.OfRun(folder / 'classifier')
  made = make_reference.make(folder / 'good.npz', reference, by)
  assert made['extractor_sha256'] == by.sha256
  words = of_samples(folder, reference=reference.name)[:-1]
  done = call(evaluate, *words, f'--extractor={folder / "classifier"}')
  assert done.returncode == 0 and '"distance": "FD-digits"' in done.stdout, done.stderr
  done = call(evaluate, *words, f'--extractor={folder / "other"}')
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
  assert 'extractor_sha256: the samples have' in done.stderr


def spoil_config(run):
  (run / 'config.json').write_text('{')


def spoil_record(run):
  (run / 'checkpoints' / '5' / 'record' / 'metadata').write_text('{')


WRONG = {
  'a word': (lambda run: 'vgg', "must be 'digits', 'inception', MODULE:CLASS or the folder"),
  'no folder': (lambda run: run / 'nowhere', 'holds no run .no config.json.: name the folder'),
  'no run': (lambda run: run.parent, 'holds no run .no config.json.: name the folder'),
  'a file': (lambda run: run / 'config.json', 'holds no run .no config.json.: name the folder'),
  'no checkpoint': (lambda run: shutil.rmtree(run / 'checkpoints') or run, 'has no checkpoint'),
  'a damaged config': (lambda run: spoil_config(run) or run, 'cannot be used: .*is damaged'),
}


@pytest.mark.parametrize('what', WRONG)
def test_what_is_none_is_told_with_the_config(what, classifier, folder, tiny, call):
  spoil, says = WRONG[what]
  name = spoil(folder / 'classifier')
  with pytest.raises(UserError, match=rf"evaluate.extractor='{name}' {says}") as told:
    config_lib.check(config_lib.change(tiny, [f'evaluate.extractor={name}']), owners.OWNERS, 1)
  assert '\n' not in str(told.value)
  done = call(evaluate, *of_samples(folder), f'--extractor={name}')
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
  assert f'--extractor={name} ' in done.stderr


def test_another_method_or_size_is_told_with_the_config(data_dir, folder, tiny, classifier):
  def told(config, name):
    with pytest.raises(UserError) as error:
      config_lib.check(config_lib.change(config, [f'evaluate.extractor={name}']), owners.OWNERS, 1)
    return str(error.value)

  assert "run' is a run of classifier_free: name one of configs/cl" in told(tiny, folder / 'run')
  other = load_config('mnist', **{'data.dir': str(data_dir)})
  text = told(other, folder / 'classifier')
  assert text.endswith('takes images of 8×8×1, and those of mnist are 28×28×1: name another.')
  with pytest.raises(UserError, match=r'uint8 \(3, 9, 9, 1\); the classifier .* takes .*8, 8, 1'):
    of_run.OfRun(folder / 'classifier')(np.zeros((3, 9, 9, 1), np.uint8))


def test_damaged_weights_are_told(classifier, folder, call):
  spoil_record(folder / 'classifier')
  done = call(evaluate, *of_samples(folder), f'--extractor={folder / "classifier"}')
  assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'is damaged' in done.stderr


def test_one_trained_on_noise_is_asked_at_its_greatest_lambda(data_dir, tmp_path):
  changes = {'method.noised': True, 'method.times': 'adm_linear'}
  config, params = write(data_dir, tmp_path / 'noised', **changes)
  images = digits(10)
  lam = jnp.full(10, 9.21024, jnp.float32)  # β₁ = 1e-4: λ = log(1 / 1e-4 − 1)
  logits, _ = jax.jit(encoder.apply_fn(encoder.of(config)))(params, batches.to_x(images), lam)
  found = of_run.OfRun(tmp_path / 'noised')(images)['logits']
  np.testing.assert_allclose(found, logits, atol=1e-5)


def test_steps_digest_is_the_short_of_it(classifier, tmp_path):
  whole = steps.ema_sha256(tmp_path / 'classifier', 5)
  assert steps.ema_digest(tmp_path / 'classifier', 5) == whole[:16]


def test_one_config_is_for_any_data_set(tmp_path):
  """Grey images of twelve pixels: their own classifier, held-out images and names."""
  images = np.random.default_rng(0).integers(256, size=(20, 12, 12), dtype=np.uint8)
  for i, image in enumerate(images):
    file = tmp_path / 'source' / ('circles', 'squares')[i % 2] / f'{i:02}.png'
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
  own = ('--source', tmp_path / 'source', '--data_dir', tmp_path, '--size', 12, '--workers', 1)
  assert prepare('shapes', *own) == 0
  changes = {'data.name': 'shapes', 'data.held_out': 5}
  config, _ = write(tmp_path, tmp_path / 'run', name='classifier_fashion_mnist', **changes)
  config_lib.check(config, owners.of(config), 1)
  assert len(registry.open_held_out(config.data)[1]) == 4
  extractor = of_run.OfRun(tmp_path / 'run')
  assert (extractor.name, extractor.labels_of, extractor.dim) == ('shapes', 'shapes', 32)
  (tmp_path / 'shapes').rename(tmp_path / 'elsewhere')
  told = of_run.problem(tmp_path / 'run')
  assert (
    told.startswith("cannot be used: data.name='shapes' is none of digits") and '\n' not in told
  )
