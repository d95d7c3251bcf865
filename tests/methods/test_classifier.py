"""The classifier of noisy images: its loss, its times, its scores, what it says of bad configs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import evals, imported, sharding
from cfg_jax.core.errors import UserError
from cfg_jax.data import batches, registry
from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate import held_out, owners
from cfg_jax.generate import __main__ as generate
from cfg_jax.nets import encoder
from tests.conftest import load_config

TINY = {
  'model.channels': 8,
  'model.head_channels': 8,
  'model.norm_groups': 4,
  'train.batch_size': 16,
  'train.num_steps': 12,
  'train.warmup_steps': 4,
}


@pytest.fixture
def config(data_dir):
  return load_config('classifier_digits', **TINY, **{'data.dir': str(data_dir)})


def of(config):
  return methods.make(config, sharding.data_mesh(jax.devices()[:1]))


@pytest.fixture
def run(config, tmp_path):
  """A run of random weights."""
  params = of(config).init(7).params
  imported.write(config, 5, params, tmp_path / 'run', {})
  return tmp_path / 'run'


def cross_entropies(config, params, z, lam, c):
  """In float64, from the network's logits."""
  logits, _ = encoder.apply_fn(encoder.of(config))(params['network'], z, lam)
  logits = np.asarray(logits, np.float64)
  return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(c)), c]


def test_without_noise_the_loss_is_that_of_the_images_as_they_are(config):
  config = config_lib.change(config, ['method.noised=false'])
  method, random = of(config), np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: method.init(0)).params
  params = jax.tree.map(lambda p: random.normal(0, 0.2, p.shape).astype(np.float32), shapes)
  x = random.uniform(-1, 1, (16, 8, 8, 1)).astype(np.float32)
  c = np.arange(16, dtype=np.int32) % 10
  batch = batches.Batch(x, batches.Cond(c, np.ones(16, bool)))
  expected = cross_entropies(config, params, x, jnp.full(16, 20.0), c).mean()
  np.testing.assert_allclose(method.loss(params, batch, jax.random.key(1)), expected, rtol=1e-5)


@pytest.mark.parametrize('times, low, high', [('paper', -20, 20), ('adm_linear', -10.1177, 9.2102)])
def test_a_step_spreads_over_its_times(config, times, low, high):
  """Every quarter of λ gets its share, by the paper's p(λ) or by ADM's thousand equal times."""
  config = config_lib.change(config, [f'method.times={times}'])
  method = of(config)
  assert methods.classifier.ends_of(config) == pytest.approx((low, high), abs=1e-3)
  rng = np.random.default_rng(0)
  x, c = rng.uniform(-1, 1, (4096, 8, 8, 1)).astype(np.float32), np.arange(4096) % 10
  batch = batches.Batch(x, batches.Cond(c.astype(np.int32), np.ones(4096, bool)))
  _, metrics = jax.jit(method.step)(jax.jit(method.init)(0), batch)
  found = [float(metrics[f'loss_quarter_{k}'].count) / 4096 for k in (1, 2, 3, 4)]
  if times == 'paper':  # P(λ < a) of λ = −2 log tan(a u + b)
    edges = np.array([-20, -10, 0, 10, 20])
    cdf = 1 - np.arctan(np.exp(-edges / 2)) / (np.pi / 2)
    expected = np.diff(cdf) / (cdf[-1] - cdf[0])
  else:
    beta = np.linspace(1e-4, 0.02, 1000)
    alpha2 = np.cumprod(1 - beta)
    expected = np.histogram(np.log(alpha2 / (1 - alpha2)), np.linspace(low, high, 5))[0] / 1000
  np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(4096))


def test_it_is_scored_on_what_was_held_out(config, run, call):
  """By hand for one image in its noise; a second call computes nothing."""
  done = call(evaluate, '--workdir', str(run))
  assert done.returncode == 0, done.stderr
  [line] = evals.read(run / 'scores.jsonl')
  assert (line['n'], line['step'], line['images']) == (360, 5, 'train, every 5th')
  assert f'top_1_quarter_4     {line["metrics"]["top_1_quarter_4"]:.4f} ±' in done.stdout
  for quarter in (1, 2, 3, 4):
    top_1, top_5 = (line['metrics'][f'top_{k}_quarter_{quarter}'] for k in (1, 5))
    assert 0 <= top_1 < top_5 < 1
    error = line['errors'][f'top_1_quarter_{quarter}']
    assert error == pytest.approx(np.sqrt(top_1 * (1 - top_1) / 360), rel=1e-6)
  before = (run / 'scores.jsonl').read_bytes()
  assert held_out.score(config_lib.of_run(run), run) == line
  assert (run / 'scores.jsonl').read_bytes() == before


def test_scores_are_of_the_images_whatever_the_batch(config, run, monkeypatch):
  config = config_lib.change(config, ['method.noised=false'])
  whole = registry.open_source(config_lib.change(config, ['data.held_out=0']).data)
  examples = [whole[i] for i in range(0, len(whole), 5)]
  batch = batches.of_examples(examples)
  params = of(config).init(7).params
  logits, _ = encoder.apply_fn(encoder.of(config))(
    params['network'], batch.x, jnp.full(len(batch.x), 20.0)
  )
  ranks = np.argsort(-np.asarray(logits), axis=1)
  hits = ranks == np.array([e['label'] for e in examples])[:, None]
  monkeypatch.setattr(held_out, 'BATCH', 100)  # 360 is no multiple
  (run / 'config.json').unlink()
  config_lib.record(config, run)
  line = held_out.score(config, run)
  assert line['metrics']['top_1'] == pytest.approx(hits[:, 0].mean())
  assert line['metrics']['top_5'] == pytest.approx(hits[:, :5].any(1).mean())


def test_training_sees_nothing_of_what_is_held_out(config):
  whole = registry.open_source(config_lib.change(config, ['data.held_out=0']).data)
  seen, (_, kept) = registry.open_source(config.data), registry.open_held_out(config.data)
  bytes_of = lambda source: [source[i]['image'].tobytes() for i in range(len(source))]  # noqa: E731
  assert len(seen) + len(kept) == len(whole) and len(kept) == 360
  both = bytes_of(seen) + bytes_of(kept)
  assert sorted(both) == sorted(bytes_of(whole))
  assert kept[3]['label'] == whole[15]['label'] and seen[4]['label'] == whole[6]['label']
  fingerprints = {registry.prepared.fingerprint(source) for source in (whole, seen, kept)}
  assert len(fingerprints) == 3


@pytest.mark.parametrize(
  'change, said',
  [
    ('method.times=cosine', 'method.times=.* is none of paper, adm_linear, adm_cosine'),
    ('train.sample_every=5', 'draws no samples: set train.sample_every=0'),
    ('data.held_out=1', 'data.held_out=1 keeps every image out of training'),
    ('model.pool=max', "model.pool='max' is none of attention, adaptive, spatial"),
    ('train.rate_decay=cosine', "train.rate_decay='cosine' must be 'none' or 'linear'"),
    ('train.weight_decay=-1', 'train.weight_decay=-1.* must be 0 to 1000'),
  ],
)
def test_a_bad_config_is_one_line(config, change, said):
  config = config_lib.change(config, [change])
  with pytest.raises(UserError, match=said) as error:
    config_lib.check(config, owners.of(config), 1)
  assert '\n' not in str(error.value)


def test_what_a_run_without_samples_cannot_do_is_one_line(config, run, call):
  done = call(generate, '--workdir', str(run))
  assert done.returncode and 'is a run of classifier, which draws no samples' in done.stderr
  done = call(evaluate, '--workdir', str(run), '--reference', 'x.npz')
  assert done.returncode and 'is scored without samples: leave out --reference' in done.stderr
  nothing = config_lib.change(config, ['data.held_out=0'])
  with pytest.raises(UserError, match='nothing is kept out of training. Train with --set data.hel'):
    registry.open_held_out(nothing.data)
