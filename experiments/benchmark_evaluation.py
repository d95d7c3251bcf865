"""How fast evaluation is beside the originals, on this machine, in turns. It asserts nothing.

  pip install -e '.[test,parity]' && python -m experiments.benchmark_evaluation [--noinception]

One Fréchet distance of 2048 features beside SciPy's sqrtm; the Inception extractor beside
torch-fidelity's, same random weights, same images, same batch, on all cores; and what reading the
images from a file and their statistics add to the extractor's own time.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import scipy.linalg
from absl import flags

from cfg_jax.core import command, runtime
from cfg_jax.evaluate import features, metrics
from cfg_jax.evaluate.extractors import inception
from cfg_jax.evaluate.features import Extractor
from cfg_jax.evaluate.images import open_images
from experiments import ratios
from experiments.ratios import Row


def extractor(batch_size: int, size: int, turns: int) -> tuple[Extractor, list[Row]]:
  """Ours; and how many times as fast as torch-fidelity's it is."""
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
  own, taken = ratios.in_turns(turns, lambda: ours(images), run_theirs)
  print(
    f'Inception, {batch_size} images of {size}×{size} at once: '
    f'{batch_size / np.median(own):.1f} images/s on {jax.device_count()} JAX devices, '
    f'{batch_size / np.median(taken):.1f} in torch-fidelity on {torch.get_num_threads()} threads '
    f'(features differ by {error:.0e} relative)'
  )
  return ours, [Row(f'Inception, beside torch-fidelity, {ratios.on_cores()}', list(taken / own))]


def overhead(network: Extractor, shape: Sequence[int], turns: int) -> list[Row]:
  """The share of an extractor's own time that a file of images (N, H, W, C) and statistics add."""
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'images.npz'
    np.savez_compressed(path, images=images)

    def alone():
      for k in range(0, len(images), features.BATCH):
        network(images[k : k + features.BATCH])

    def all_of_it():
      features.stream(open_images(path).batches(features.BATCH), network)

    own, whole = ratios.in_turns(turns, alone, all_of_it)
  what = f'{network.name}: what reading and statistics of {len(images)} images add'
  return [Row(what, list(whole / own - 1), '%')]


def frechet(turns: int, dim: int = 2048) -> list[Row]:
  """One Fréchet distance of `dim` features beside SciPy's sqrtm."""
  rng = np.random.default_rng(0)
  scale = np.geomspace(1, 1e-3, dim)
  covs = []
  for _ in range(2):
    mixed = rng.normal(size=(2 * dim, dim)) * scale @ rng.normal(size=(dim, dim))
    covs.append(np.cov(mixed, rowvar=False) / dim)
  mu = np.zeros(dim)

  def by_sqrtm():
    product = scipy.linalg.sqrtm(covs[0] @ covs[1])
    return np.trace(covs[0] + covs[1]) - 2 * np.trace(product.real)

  def ours():
    return metrics.frechet_distance(mu, covs[0], mu, covs[1])

  difference = abs(ours() / by_sqrtm() - 1)
  own, taken = ratios.in_turns(turns, ours, by_sqrtm)
  print(
    f'Fréchet distance, {dim} features: {np.median(own):.1f} s here, {np.median(taken):.1f} s by '
    f"SciPy {scipy.__version__}'s sqrtm (they differ by {difference:.0e})"
  )
  return [Row(f"Fréchet distance, {dim} features, beside SciPy's sqrtm", list(taken / own))]


def main(argv: list[str]) -> None:
  """All of it."""
  del argv
  given = flags.FLAGS
  rows = frechet(given.turns)
  if given.inception:
    network, beside = extractor(given.batch_size, given.size, given.turns)
    shape = given.num_images, given.size, given.size, 3
    rows += beside + overhead(network, shape, given.turns)
  ratios.report(rows)


if __name__ == '__main__':
  flags.DEFINE_boolean('inception', True, 'Whether the extractor is measured too.')
  flags.DEFINE_integer('batch_size', 32, 'Images at once, for both.')
  flags.DEFINE_integer('size', 64, 'Their height and width.')
  flags.DEFINE_integer('num_images', 512, 'In the file that is read.')
  ratios.define_flags(turns=5)
  command.run(main)
