"""One's own photographs, by the commands of the README: prepare, train, stop, resume, sample."""

import json

import numpy as np
import pytest
from PIL import Image

from cfg_jax.data.prepare import speed
from tests.conftest import run

# configs/cifar10.py as it is, but for its size: at full width a step takes seconds on two cores.
SMALL = {
  'data.name': 'photos',
  'model.channels': 16,
  'model.head_channels': 16,
  'model.norm_groups': 8,
  'model.num_blocks': 1,
  'model.channel_mults': '1,2',
  'model.dtype': 'float32',
  'train.batch_size': 8,
  'train.warmup_steps': 10,
  'train.ema_decay': 0.9,
  'train.log_every': 5,
  'train.checkpoint_every': 25,
}


def command(name, *flags):
  done = run(name, *map(str, flags))
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow
def test_a_folder_of_photographs_becomes_samples(tmp_path):
  """Patches of scikit-learn's two photographs, 50 steps with a stop after 25, T = 4."""
  for i, jpeg in enumerate(speed.photographs(120, (80, 96))):  # of the two in turn
    file = tmp_path / 'source' / ('china', 'flower')[i % 2] / f'{i:03}.jpg'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(jpeg)
  data_dir, workdir = tmp_path / 'data', tmp_path / 'run'
  flags = ('--source', tmp_path / 'source', '--size', 32, '--data_dir', data_dir, '--workers', 1)
  assert '120 images of 2 classes' in command('cfg_jax.data.prepare', 'photos', *flags)

  def train(steps):
    changes = SMALL | {'data.dir': data_dir, 'train.num_steps': steps}
    overrides = [f'--config.{name}={value}' for name, value in changes.items()]
    config = ('--config', 'configs/cifar10.py', '--workdir', workdir)
    command('cfg_jax.train', *config, *overrides)
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]

  before, after = train(25), train(50)
  assert [line['step'] for line in after] == list(range(5, 55, 5))
  assert after[:5] == before, 'resumed, not begun anew'
  assert all(np.isfinite(line['loss']) for line in after) and after[-1]['loss'] < after[0]['loss']
  assert {path.name for path in (workdir / 'checkpoints').iterdir()} >= {'25', '50'}

  short = ('--num_samples', 8, '--w', '0,1')
  settings = ('sampler.num_steps=4', 'batch_size=8', 'labels=balanced')
  sets = [f'--set=sample.{setting}' for setting in settings]
  command('cfg_jax.generate', '--workdir', workdir, *short, *sets)
  (grid,) = workdir.glob('samples/step=50,ema,ddpm,T=4,*/grid.png')
  pixels = np.asarray(Image.open(grid))
  assert pixels.ndim == 3 and pixels.shape[2] == 3
  first, second = pixels[-66:, -66:-34], pixels[-66:, -32:]  # w = 0 and 1; names are left and above
  assert first.shape == second.shape == (66, 32, 3)
  assert first.std() > 10 and (first != second).any()
