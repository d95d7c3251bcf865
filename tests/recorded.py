"""What the package computed before it was rebuilt: `python -m tests.recorded` writes it anew.

Through the commands alone: the digests of a trained state, the images of its checkpoint at three
w, their metrics, and the loss curve on eight devices. `test_recorded` holds today's code against
the file, to the last bit on a machine like the one that wrote it.
"""

import hashlib
import json
import platform
import tempfile
from pathlib import Path

import jax
import numpy as np

from tests.conftest import run, tiny_flags

FILE = Path(__file__).parent / 'golden' / 'recorded.json'
IMAGES = FILE.with_suffix('.npz')
W = (0.0, 0.5, 4.0)


def machine() -> dict[str, str]:
  """What the last bits of a float32 sum depend on."""
  cpu = platform.processor() or platform.machine()
  if Path('/proc/cpuinfo').exists():
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    cpu = next((line.split(':')[1].strip() for line in lines if line.startswith('flags')), cpu)
  return {'cpu': hashlib.sha256(cpu.encode()).hexdigest(), 'jax': jax.__version__}


def losses(workdir: Path) -> list[float]:
  return [json.loads(line)['loss'] for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def record(folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
  """(what is compared, the images by w), of runs made in `folder`."""
  data, one, eight = folder / 'data', folder / 'one', folder / 'eight'
  for workdir, devices in ((one, '1'), (eight, '8')):
    changes = {
      'model.dropout': 0.1,
      'train.log_every': 1,
      'sample.guidance.w': W,
      'train.learning_rate': 0.02,
      'train.ema_decay': 0.99,
    }
    flags = tiny_flags(workdir, data, **changes)
    done = run('cfg_jax.train', *flags, JAX_NUM_CPU_DEVICES=devices)
    assert done.returncode == 0, done.stderr
  for module in ('cfg_jax.generate', 'cfg_jax.evaluate'):
    done = run(module, '--workdir', str(one), JAX_NUM_CPU_DEVICES='1')
    assert done.returncode == 0, done.stderr

  record_file = one / 'checkpoints' / '12' / 'record' / 'metadata'
  digests = sorted(json.loads(record_file.read_text())['digests'].values())
  images = {}
  for w in W:
    [shards] = [p for p in one.glob('samples/**/w=*') if p.name.split('-')[0] == f'w={w:g}']
    files = sorted(shards.glob('*.npz'))
    images[f'w={w:g}'] = np.concatenate([np.load(file)['images'] for file in files])
  lines = [json.loads(line) for line in (one / 'evals.jsonl').read_text().splitlines()]
  return {
    'machine': machine(),
    'state': hashlib.sha256(''.join(digests).encode()).hexdigest(),
    'leaves': len(digests),
    'images': {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in images.items()},
    'metrics': [line['metrics'] for line in lines],
    'losses': losses(one),
    'losses on eight devices': losses(eight),
  }, images


if __name__ == '__main__':
  with tempfile.TemporaryDirectory() as temporary:
    found, pictures = record(Path(temporary))
  FILE.write_text(json.dumps(found, indent=2) + '\n')
  np.savez_compressed(IMAGES, **pictures)
