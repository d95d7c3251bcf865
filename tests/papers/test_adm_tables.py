"""ADM's published numbers, as data."""

from cfg_jax.core import config as config_lib
from cfg_jax.papers.adm import tables
from tests.conftest import load_config
from tests.report.reports import STUDY


def test_the_numbers_of_the_paper():
  rows = {
    (size, row.conditional, row.dropout, row.steps, row.scale): row.metrics
    for size in (64, 128, 256)
    for row in tables.guided(size)
  }
  fids = {key: metrics['FID-50k'] for key, metrics in rows.items()}
  assert fids == {
    (64, True, 0.0, 250, 0.0): 2.61,
    (64, True, 0.1, 250, 0.0): 2.07,
    (128, True, 0.0, 250, 0.0): 5.91,
    (128, True, 0.0, 250, 0.5): 2.97,
    (128, True, 0.0, 25, 1.25): 5.98,
    (256, False, 0.0, 250, 0.0): 26.21,
    (256, False, 0.0, 250, 1.0): 33.03,
    (256, False, 0.0, 250, 10.0): 12.00,
    (256, True, 0.0, 250, 0.0): 10.94,
    (256, True, 0.0, 250, 1.0): 4.59,
    (256, True, 0.0, 250, 10.0): 9.11,
    (256, True, 0.0, 25, 2.5): 5.44,
  }
  assert rows[256, True, 0.0, 250, 1.0] == {
    'FID-50k': 4.59,
    'sFID': 5.25,
    'IS': 186.70,
    'precision': 0.82,
    'recall': 0.52,
  }


def test_what_is_not_published_is_left_out():
  """No guided result at 64×64, and no Inception Score below 256×256."""
  assert not any(row.scale for row in tables.guided(64))
  assert not any('IS' in row.metrics for size in (64, 128) for row in tables.guided(size))
  assert tables.guided(512) == ()


def test_it_stands_beside_runs_with_its_settings_at_their_w():
  """Table 4, ImageNet 256×256: w is the scale, and the scale less one without classes."""
  found = {p.name: p for p in STUDY.beside('imagenet256', 'FID-50k')}
  conditional = found['ADM, conditional, 250 steps']
  assert conditional.x == (0, 1, 10) and conditional.metrics['FID-50k'] == (10.94, 4.59, 9.11)
  assert conditional.settings['sample.guidance.pair'] == 'classifier'
  unconditional = found['ADM, unconditional, 250 steps']
  assert unconditional.x == (-1, 0, 9) and unconditional.metrics['IS'] == (39.70, 32.92, 95.41)
  assert unconditional.settings['sample.guidance.pair'] == 'classifier_unconditional'
  assert unconditional.settings['sample.guidance.rule'] == 'mean_shift'
  ddim = found['ADM, conditional, DDIM, 25 steps']
  assert (ddim.x, ddim.metrics) == ((2.5,), {'FID-50k': (5.44,)})
  assert tables.published('imagenet256', 'FD-digits') == tables.published('digits', 'FID-50k') == []
  known = config_lib.flat(load_config('imagenet64').to_dict()).keys() | {'resize'}
  assert {*conditional.settings} <= known
