"""How many images a second one core prepares, and reads: for experiments/benchmark_shares.py."""

import contextlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images
from threadpoolctl import threadpool_limits

from cfg_jax.data import prepared
from cfg_jax.data.prepare import sources, writing


def photographs(num: int, shape: tuple[int, int] = (375, 500), seed: int = 0) -> list[bytes]:
  """JPEGs of about ImageNet's size: random patches of scikit-learn's two photographs, in turn."""
  rng = np.random.default_rng(seed)
  photos = load_sample_images().images  # two, 427 × 640
  result = []
  for i in range(num):
    y, x = (rng.integers(0, n - m + 1) for n, m in zip(photos[0].shape, shape))
    buffer = io.BytesIO()
    patch = photos[i % 2][y : y + shape[0], x : x + shape[1]]
    Image.fromarray(patch).save(buffer, 'JPEG', quality=95)
    result.append(buffer.getvalue())
  return result


def measure(size: int = 64, num_images: int = 400) -> dict[str, float]:
  """Images a second of one core: 'prepare' (JPEG to shard), 'read' (shuffled, decoded to uint8).

  By the processor time of one thread, so that other work on the machine hardly shows.
  """
  jpegs = photographs(num_images)
  shard = sources.Shard('', lambda: ((str(i), jpeg, i % 2) for i, jpeg in enumerate(jpegs)))
  source = sources.Source(['china', 'flower'], (size, size, 3), {'train': [shard]})
  with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
      writing.write(source, Path(folder) / 'speed' / writing.VERSION, workers=1)
    prepare = num_images / (time.process_time() - start)
    images = prepared.open_source('speed', Path(folder), 'train')
    order = np.random.default_rng(0).permutation(num_images).tolist()
    images[0]  # opens the file
    start = time.process_time()
    for i in order:
      images[i]
    return {'prepare': prepare, 'read': num_images / (time.process_time() - start)}
