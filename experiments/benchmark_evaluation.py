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
from absl import flags

from cfg_jax.core import command, runtime
from cfg_jax.evaluate import metrics
from cfg_jax.evaluate.extractors import inception


def seconds(rounds: int, **calls: Callable[[], object]) -> dict[str, float]:
  """Median time of each call over rounds in which they take turns; the first round is warm-up."""
  times = {name: [] for name in calls}
  for _ in range(rounds + 1):
    for name, call in calls.items():
      start = time.perf_counter()
      call()
      times[name].append(time.perf_counter() - start)
  return {name: statistics.median(t[1:]) for name, t in times.items()}


def extractor(batch_size: int, size: int, rounds: int) -> None:
  """Images per second, ours and torch-fidelity's."""
  import torch  # here, so that the other benchmark runs without it

  from experiments import originals

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  runtime.setup_jax(batch_size)  # one JAX device a core, as the commands do
  theirs = originals.torch_fidelity_inception().eval()
  torch.manual_seed(0)
  for layer in theirs.modules():  # under PyTorch's own initialisation features vanish
    if isinstance(layer, torch.nn.Conv2d):
      torch.nn.init.kaiming_normal_(layer.weight)
  state = {k: v for k, v in theirs.state_dict().items() if v.is_floating_point()}
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'random.pth'
    torch.save(state, path)
    ours = inception.Inception(path, unknown_weights=True, batch_size=batch_size)
  images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), np.uint8)
  tensor = torch.tensor(images).permute(0, 3, 1, 2).contiguous()

  def run_theirs():
    with torch.no_grad():
      return theirs(tensor)[0].numpy()

  error = np.linalg.norm(ours(images)['features'] - run_theirs()) / np.linalg.norm(run_theirs())
  times = seconds(rounds, ours=lambda: ours(images), theirs=run_theirs)
  a, b = (batch_size / times[k] for k in ('ours', 'theirs'))
  print(
    f'Inception, {batch_size} images of {size}×{size} at once: {a:.1f} images/s '
    f'on {jax.device_count()} JAX devices, {b:.1f} in torch-fidelity on {torch.get_num_threads()} '
    f'threads: {a / b:.2f} times as fast (features differ by {error:.0e} relative)'
  )


def frechet(rounds: int) -> None:
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
  times = seconds(rounds, ours=ours, sqrtm=by_sqrtm)
  print(
    f'Fréchet distance, 2048 features: {times["ours"]:.1f} s here, {times["sqrtm"]:.1f} s with '
    f"SciPy {scipy.__version__}'s sqrtm: {times['ours'] / times['sqrtm']:.2f} of its time "
    f'(they differ by {difference:.0e})'
  )


def main(argv: list[str]) -> None:
  """Both benchmarks."""
  del argv
  given = flags.FLAGS
  frechet(given.rounds)
  extractor(given.batch_size, given.size, given.rounds)


if __name__ == '__main__':
  flags.DEFINE_integer('batch_size', 32, 'Images at once, for both.')
  flags.DEFINE_integer('size', 64, 'Their height and width.')
  flags.DEFINE_integer('rounds', 7, 'Turns; the median counts.')
  command.run(main)
