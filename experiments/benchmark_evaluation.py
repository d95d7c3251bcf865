"""How fast evaluation is beside the originals, on this machine, in one run. It asserts nothing.

  pip install -e '.[test,parity]' && python -m experiments.benchmark_evaluation

Images per second of the Inception extractor and of torch-fidelity's, same random weights, same
images, same batch, on all cores, in turn; and the seconds of one Fréchet distance of 2048 features
beside SciPy's sqrtm.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import scipy.linalg
from absl import app, flags

from cfg_jax.core import runtime
from cfg_jax.evaluate import metrics
from cfg_jax.evaluate.extractors import inception

BATCH_SIZE = flags.DEFINE_integer('batch_size', 32, 'Images at once, for both.')
SIZE = flags.DEFINE_integer('size', 64, 'Their height and width.')
ROUNDS = flags.DEFINE_integer('rounds', 7, 'Turns; the median counts.')


def seconds(**calls: Callable[[], object]) -> dict[str, float]:
  """Median time of each call over rounds in which they take turns; the first round is warm-up."""
  times = {name: [] for name in calls}
  for _ in range(ROUNDS.value + 1):
    for name, call in calls.items():
      start = time.perf_counter()
      call()
      times[name].append(time.perf_counter() - start)
  return {name: statistics.median(t[1:]) for name, t in times.items()}


def extractor() -> None:
  """Images per second, ours and torch-fidelity's."""
  import torch  # here, so that the other benchmark runs without it

  from tests import originals, random_inception

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  runtime.setup_jax(BATCH_SIZE.value)  # one JAX device a core, as the commands do
  state = random_inception.random_state()
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'random.pth'
    random_inception.save(path, state)
    ours = inception.Inception(path, unknown_weights=True, batch_size=BATCH_SIZE.value)
  theirs = originals.torch_fidelity_inception(state)
  images = random_inception.images(0, BATCH_SIZE.value, SIZE.value, SIZE.value, 3)
  tensor = torch.tensor(images).permute(0, 3, 1, 2).contiguous()

  def run_theirs():
    with torch.no_grad():
      return theirs(tensor)[0].numpy()

  error = np.linalg.norm(ours(images)['features'] - run_theirs()) / np.linalg.norm(run_theirs())
  times = seconds(ours=lambda: ours(images), theirs=run_theirs)
  a, b = (BATCH_SIZE.value / times[k] for k in ('ours', 'theirs'))
  print(
    f'Inception, {BATCH_SIZE.value} images of {SIZE.value}×{SIZE.value} at once: {a:.1f} images/s '
    f'on {jax.device_count()} JAX devices, {b:.1f} in torch-fidelity on {torch.get_num_threads()} '
    f'threads: {a / b:.2f} times as fast (features differ by {error:.0e} relative)'
  )


def frechet() -> None:
  """Seconds of one Fréchet distance of 2048 features, ours and by SciPy's sqrtm."""
  rng = np.random.default_rng(0)
  scale = np.geomspace(1, 1e-3, 2048)
  covs = []
  for _ in range(2):
    mixed = rng.normal(size=(4000, 2048)) * scale @ rng.normal(size=(2048, 2048))
    covs.append(np.cov(mixed, rowvar=False) / 2048)
  mu = np.zeros(2048)

  def by_sqrtm():
    product = scipy.linalg.sqrtm(covs[0] @ covs[1])
    return np.trace(covs[0] + covs[1]) - 2 * np.trace(product.real)

  def ours():
    return metrics.frechet_distance(mu, covs[0], mu, covs[1])

  difference = abs(ours() / by_sqrtm() - 1)
  times = seconds(ours=ours, sqrtm=by_sqrtm)
  print(
    f'Fréchet distance, 2048 features: {times["ours"]:.1f} s here, {times["sqrtm"]:.1f} s with '
    f"SciPy {scipy.__version__}'s sqrtm: {times['ours'] / times['sqrtm']:.2f} of its time "
    f'(they differ by {difference:.0e})'
  )


def main(argv: list[str]) -> None:
  """Both benchmarks."""
  del argv
  frechet()
  extractor()


if __name__ == '__main__':
  app.run(main)
