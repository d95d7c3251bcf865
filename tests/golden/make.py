"""Writes the golden files of the quick tests from the originals: torch-fidelity, pytorch-fid, prdc.

  pip install -e '.[test,parity]' && python -m tests.golden.make

The quick tests compare with these files where PyTorch is not installed; `test_parity_evaluation.py`
compares with the originals themselves.
"""

import json
from pathlib import Path

import numpy as np
import torch

from experiments import originals
from tests import random_inception


def write_inception(folder: Path) -> None:
  """Names and shapes of the 472 tensors; taps of a few images under random weights."""
  shapes = {
    k: list(v.shape)
    for k, v in originals.torch_fidelity_inception().state_dict().items()
    if not k.endswith('num_batches_tracked')
  }
  (folder / 'inception_shapes.json').write_text(json.dumps(shapes) + '\n')
  state = random_inception.random_state()
  images = random_inception.images(1, 2, 40, 56, 3)
  taps = originals.torch_fidelity_taps(state, images)
  half_pixel = originals.pytorch_fid_pool3(state, images)
  np.savez_compressed(folder / 'inception_taps.npz', images=images, half_pixel=half_pixel, **taps)


def write_metrics(folder: Path) -> None:
  """Features and logits of two sets, and the originals' numbers for them."""
  rng = np.random.RandomState(0)
  real = rng.normal(size=(160, 12)).astype(np.float32)
  fake = (0.9 * rng.normal(size=(140, 12)) + 0.2).astype(np.float32)
  logits = (3 * rng.normal(size=(140, 9))).astype(np.float32)
  numbers = originals.metrics(real, fake, logits, kid_subset_size=50)
  np.savez_compressed(folder / 'metrics.npz', real=real, fake=fake, logits=logits, **numbers)


def write_torch_files(folder: Path) -> None:
  """One small state dictionary in both formats of torch.save, a transposed view in it."""
  state = {
    'weight': torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7,
    'count': torch.tensor(3),
    'view': torch.arange(12, dtype=torch.float32)[2:8].reshape(2, 3).t(),
  }
  torch.save(state, folder / 'zip.pth')
  torch.save(state, folder / 'legacy.pth', _use_new_zipfile_serialization=False)


if __name__ == '__main__':
  folder = Path(__file__).parent
  write_inception(folder)
  write_metrics(folder)
  write_torch_files(folder)
