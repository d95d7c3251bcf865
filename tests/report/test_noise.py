"""What the page says of noise: paired differences, verdicts, means of seeds, real images."""

import json

import numpy as np
import pytest

from cfg_jax.evaluate.references import digest_of
from cfg_jax.papers.cfg import findings
from cfg_jax.report import cells, noise
from cfg_jax.report.curves import Curve, curves
from tests.report.reports import STUDY, report_on, write_run

W = np.array([0.0, 0.3, 4.0])
NOISE = np.random.RandomState(0).normal(size=(2000, 1))


def curve(fd, score, alike, own, p_uncond=0.1, seed=1):
  """A curve whose points move together by `alike`, and each for itself by `own`."""
  each = np.random.RandomState(seed).normal(size=(2, 2000, 3))
  deviations = {'FD': alike * NOISE + own * each[0], 'IS': 0.1 * own * each[1]}
  metrics = {'FD': np.array(fd, float), 'IS': np.array(score, float)}
  errors = {k: np.sqrt(np.mean(v**2, axis=0)) for k, v in deviations.items()}
  settings = {'run': 'a', 'method.p_uncond': p_uncond, 'seed': 0, 'sample.seed': 0}
  return Curve(f'p = {p_uncond}', settings, 'FD', W, metrics, errors, deviations)


def verdicts(*given):
  return [f.verdict for f in findings.findings(given)]


def test_a_difference_has_the_error_of_the_pair_and_not_of_its_parts():
  c = curve([31.24, 31.15, 40], [1, 2, 3], alike=2.0, own=0.1)
  low, high = noise.differences(c, 'FD', [(0, 1), (2, 1)])
  assert c.error('FD')[0] > 1.9
  np.testing.assert_allclose([low.error, high.error], 0.1 * 2**0.5, rtol=0.06)
  assert 2.0 <= low.bound < 2.5 and not low.clear and high.clear
  unpaired = c._replace(deviations={})
  [d] = noise.differences(unpaired, 'FD', [(0, 1)])
  np.testing.assert_allclose(d.error, np.hypot(*c.error('FD')[:2]))


def test_the_largest_of_many_differences_counts_only_beyond_what_noise_makes_of_them():
  w = np.arange(12.0)
  wild = {'FD': np.random.RandomState(0).normal(size=(2000, 12))}
  many = Curve('', {}, 'FD', w, {'FD': np.zeros(12)}, {}, wild)
  bounds = [noise.differences(many, 'FD', [(j, 0) for j in range(1, k)])[0].bound for k in (2, 12)]
  assert bounds[0] < 2.1 and 2.5 < bounds[1] < 3


def test_the_page_of_a_run_of_100_samples_says_within_noise():
  """31.15 at w = 0.3 against 31.24 at w = 0, as a first user saw it."""
  noisy = curve([31.24, 31.15, 40], [5, 6, 7], alike=2.0, own=0.5)
  sure = curve([31.24, 31.15, 40], [5, 6, 7], alike=2.0, own=0.01)
  assert verdicts(noisy)[:2] == ['noise', 'yes'] and verdicts(sure)[:2] == ['yes', 'yes']
  assert 'within noise' in findings.findings([noisy])[0].lines[0]
  least_at_0 = curve([31.15, 31.24, 40], [5, 6, 7], alike=2.0, own=0.5)
  assert verdicts(least_at_0)[0] == 'noise'
  assert verdicts(curve([31, 36, 40], [5, 6, 7], 2.0, 0.5))[0] == 'no'


def test_falls_of_is_within_noise_are_none():
  assert verdicts(curve([3, 2, 4], [5, 4.99, 7], 0.1, 0.3))[1] == 'yes'
  assert verdicts(curve([3, 2, 4], [5, 4.5, 7], 0.1, 0.3))[1] == 'partly'
  assert verdicts(curve([3, 2, 4], [5, 5.01, 5.02], 0.1, 0.3))[1] == 'noise'


def test_frontiers_within_noise():
  low, high = curve([3, 2, 4], [5, 6, 7], 0.1, 0.2), [3.1, 2.1, 4.1]
  assert verdicts(low, curve(high, [5, 6, 7], 0.1, 0.2, 0.5, seed=2))[2] == 'noise'
  assert verdicts(low, curve(high, [5, 6, 7], 0.1, 0.002, 0.5, seed=1))[2] == 'noise'
  sure = low._replace(deviations={k: v / 100 for k, v in low.deviations.items()})
  other = curve(high, [5, 6, 7], 0.001, 0.002, 0.5, seed=2)
  assert verdicts(sure, other)[2] == 'yes'


def test_one_finding_of_several_curves():
  together = findings._together
  assert together(['yes', 'noise']) == 'partly' and together(['noise', 'noise']) == 'noise'
  assert together(['no', 'noise']) == 'no' and together(['untested', 'noise']) == 'noise'


def metrics(fd, score):
  return {'FD-digits': fd, 'IS': score, 'IS_std': 0.1}


def write_seeds(folder, field, values):
  for seed, shift in enumerate(values):
    for w in (0.0, 1.0):
      found = metrics(10 + shift + w + 0.01 * seed * w, 9 + w / 10)
      run = f'seed={seed}' if field == 'seed' else 'run'
      write_run(folder, run, 0.1, ws=(w,), n=20, metrics=found, **{field: seed})


@pytest.mark.parametrize('field', ['seed', 'sample_seed'])
def test_seeds_become_a_mean_with_its_error(tmp_path, field):
  write_seeds(tmp_path, field, (0.0, 1.0, 5.0))
  [c] = curves(cells.read(tmp_path, STUDY.axis), STUDY.axis)
  assert c.values('FD-digits').tolist() == [12.0, pytest.approx(13.01)] and len(c.members) == 3
  error = np.std([0, 1, 5], ddof=1) / 3**0.5
  np.testing.assert_allclose(c.error('FD-digits')[0], error)
  [d] = noise.differences(c, 'FD-digits', [(1, 0)])  # by seed: what they have in common is gone
  np.testing.assert_allclose([d.value, d.error], [1.01, 0.01 / 3**0.5])
  assert d.bound == 4.30 and d.clear
  page = report_on(tmp_path)
  assert 'mean of 3 seeds' in page.text and '3 seeds' in page.text
  assert [g for g in page.all('g') if g.get('data-group') == '0']


def test_seeds_of_unlike_runs_are_not_put_together(tmp_path):
  write_seeds(tmp_path, 'seed', (0.0, 1.0))
  path = tmp_path / 'seed=1/config.json'
  config = json.loads(path.read_text())
  path.write_text(json.dumps(config | {'train': {'learning_rate': 1}}))
  assert len(curves(cells.read(tmp_path, STUDY.axis), STUDY.axis)) == 2


def test_seeds_that_agree_by_chance_have_the_error_of_their_samples(tmp_path):
  for seed in (0, 1):
    found = metrics(10.0, 9.0)
    write_run(
      tmp_path,
      f's{seed}',
      0.1,
      ws=(0.0,),
      n=20,
      metrics=found,
      seed=seed,
      sample_seed=seed,
      error=0.1,
    )
  [c] = curves(cells.read(tmp_path, STUDY.axis), STUDY.axis)
  assert 0.4 < c.error('FD-digits')[0] < 1.2


def test_real_images_are_a_line_and_a_sheet_and_how_they_were_drawn_is_said(tmp_path):
  folder = write_run(tmp_path, 'run', 0.1, n=100)
  told = {'dataset': 'digits', 'n': 100, 'of': 1797, 'seed': 0, 'distance': 'FD-digits'}
  told |= {'extractor_sha256': 'ab' * 32, 'reference_sha256': 'cd' * 32, 'classes': []}
  told |= {'metrics': {'FD-digits': 2.0, 'IS': 9.6}, 'errors': {'FD-digits': 0.5, 'IS': 0.02}}
  images = np.zeros((20, 8, 8, 1), np.uint8)
  (folder / 'real').mkdir()
  arrays = {'labels': np.arange(20) % 10, 'indices': np.arange(20), 'images': images}

  def save(told):
    all_of_it = arrays | {'told': np.array(json.dumps(told))}
    np.savez(folder / 'real/a.npz', digest=digest_of(all_of_it), **all_of_it)

  save(told)
  page = report_on(tmp_path)
  words = 'Real images, 100 of the 1797 of training, drawn without replacement (seed 0): '
  assert f'{words}FD-digits 2.00 ± 0.50, IS 9.600 ± 0.020.' in page.text
  tips = [g['data-tip'] for g in page.all('g') if g.get('data-tip', '').startswith('100 real')]
  assert '100 real images: w = 4, FD-digits 2' in tips
  assert [i for i in page.all('img') if i['alt'].startswith('Real images of classes 0, 1')]
  save(told | {'n': 50})  # not as many: not the floor of these curves
  assert words not in report_on(tmp_path).text
  (folder / 'real/a.npz').write_bytes(b'PK')
  assert 'run/real/a.npz: left out' in report_on(tmp_path).text
