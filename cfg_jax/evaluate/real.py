"""What real images score: where every curve would end, drawn from the data as is told."""

import json
import math
from pathlib import Path

import ml_collections
import numpy as np

from cfg_jax.core import files
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.data.names import class_names
from cfg_jax.evaluate import features, scoring
from cfg_jax.evaluate.features import BATCH, Extractor
from cfg_jax.evaluate.references import Reference, digest_of

SEED = 0  # which images are drawn
SHOWN = (10, 8)  # classes, and images of each, that are kept to be looked at


def write(
  config: ml_collections.ConfigDict,
  workdir: Path,
  n: int,
  extractor: Extractor,
  reference: Reference,
  as_adm: bool = False,
) -> None:
  """Leaves in workdir/real the metrics of n real training images, and some of them.

  n different images, or all where there are fewer. A file of the same already made, here or beside
  the references of the data, is taken. Says so in one line where the data is not at hand.
  """
  sha = f'{extractor.sha256[:8]}-{reference.sha256[:8]}' + ('-as_adm' if as_adm else '')
  name = f'{config.data.name}-{n}-{extractor.name}-{extractor.resize}-{sha}.npz'
  path = Path(workdir) / 'real' / name
  if path.exists():
    return
  kept = files.expand(config.data.dir) / 'references' / f'real-{name}'
  try:
    if not kept.exists():
      _make(config, kept, n, extractor, reference, as_adm)
    content = kept.read_bytes()
  except (UserError, OSError) as error:
    print(f'evaluate {Path(workdir).name}: nothing real to compare with: {error}', flush=True)
    return
  with files.atomic(path) as file:
    file.write(content)


def _make(config, path, n, extractor, reference, as_adm):
  source = registry.open_source(config.data)
  n, of = min(n, len(source)), len(source)
  features.check_enough(n, f'{config.data.name} has {n} images')
  indices = np.sort(np.random.RandomState(SEED).permutation(of)[:n])
  labels, shown = [], {}

  def batches():
    for start in range(0, n, BATCH):
      rows = indices[start : start + BATCH].tolist()
      examples = source.__getitems__(rows)
      for i, example in zip(rows, examples):
        label = int(example['label'])
        labels.append(label)
        of_class = shown.setdefault(label, [])
        if len(of_class) < SHOWN[1]:
          of_class.append((i, example['image']))
      yield np.stack([example['image'] for example in examples])

  found = features.stream(batches(), extractor)
  has_labels = extractor.labels_of == config.data.name
  labels_known = np.array(labels) if has_labels else None
  told = scoring.results(found, reference, extractor, labels_known, as_adm)
  left = math.sqrt(1 - n / of)  # of n of the very images that the reference is of
  told['errors'] = {k: v * left for k, v in told['errors'].items()}
  told |= {'dataset': config.data.name, 'n': n, 'of': of, 'seed': SEED}
  conditions = scoring.conditions(features.settings(extractor), reference, as_adm)
  told |= {k: conditions[k] for k in ('extractor_sha256', 'reference_sha256', 'metric_settings')}
  told['classes'] = class_names(config.data.name, path.parents[1])
  classes = sorted(shown)
  count = min(SHOWN[0], len(classes))
  picked = [classes[j * len(classes) // count] for j in range(count)]
  rows = [(c, i, image) for c in picked for i, image in shown[c]]
  arrays = {
    'told': np.array(json.dumps(told)),
    'labels': np.array([c for c, _, _ in rows]),
    'indices': np.array([i for _, i, _ in rows]),
    'images': np.stack([image for _, _, image in rows]),
  }
  with files.atomic(path) as file:
    np.savez_compressed(file, digest=digest_of(arrays), **arrays)


def read(folder: Path) -> tuple[list[dict], list[str]]:
  """What `write` left in a run: `told`, with labels, indices and images; and what is damaged."""
  found, notes = [], []
  for path in sorted(Path(folder).glob('real/*.npz')):
    try:
      with np.load(path, allow_pickle=False) as arrays:
        arrays = dict(arrays)
        if str(arrays.pop('digest')) != digest_of(arrays):
          raise ValueError('its digest is of other contents')
        told = json.loads(str(arrays['told']))
        images = arrays['images']
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
          raise ValueError(f'{images.dtype} {images.shape} are no images')
        told |= {k: arrays[k] for k in ('labels', 'indices', 'images')}
        found.append(told | {k: dict(told[k]) for k in ('metrics', 'errors')})
    except (*files.NPZ_DAMAGE, TypeError) as error:
      notes.append(f'{folder.name}/real/{path.name}: left out, {error}.')
  return found, notes
