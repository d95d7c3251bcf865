"""The rebuild changed no bit of what is computed."""

import json

import numpy as np

from tests import recorded


def test_state_images_metrics_and_loss_curve_are_those_recorded(tmp_path):
  """To the last bit on a machine like the one that recorded them, and elsewhere to rounding."""
  before = json.loads(recorded.FILE.read_text())
  found, images = recorded.record(tmp_path)
  if found['machine'] == before['machine']:
    assert found == before
  assert found['leaves'] == before['leaves']
  for name in ('losses', 'losses on eight devices'):
    np.testing.assert_allclose(found[name], before[name], rtol=1e-4)
  with np.load(recorded.IMAGES) as expected:
    for name, x in images.items():
      difference = np.abs(x.astype(int) - expected[name].astype(int))
      assert difference.max() <= 3 and difference.mean() < 0.1
