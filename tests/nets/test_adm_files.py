"""Files of guided-diffusion: of half precision, its own checkpoints, those of other networks."""

# ruff: noqa: E402
import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='pip install -e .[parity]')

from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.generate import __main__ as sample
from cfg_jax.generate import draw
from cfg_jax.nets import adm
from experiments import adm_pytorch
from tests import test_readme
from tests.conftest import load_config
from tests.nets.tiny_adm import OVERRIDES, TINY


def as_guided_diffusion_saves(network):
  """Its EMA file of a float16 training: views of a few flat vectors, and parameters among them."""
  state = network.state_dict()
  for names in (list(state)[0::2], list(state)[1::2]):
    flat = torch.nn.Parameter(torch.cat([state[name].flatten() for name in names]))
    sizes = [state[name].numel() for name in names]
    for name, part in zip(names, flat.split(sizes)):
      state[name] = part.view(state[name].shape)
  first = next(iter(state))
  state[first] = torch.nn.Parameter(state[first].detach())
  return state


def test_guided_diffusions_own_checkpoint_is_read(imported, tmp_path):
  """Of the same numbers it makes the same weights; its name tells the step."""
  network, _, workdir = imported
  path = tmp_path / 'ema_0.9999_012345.pt'
  torch.save(as_guided_diffusion_saves(network), path)
  adm.import_run(load_config('digits', **OVERRIDES), path, tmp_path / 'run')
  config = config_lib.of_run(tmp_path / 'run')
  assert config.train.num_steps == 12_345
  mesh = sharding.data_mesh()
  step, params = draw.load_params(config, tmp_path / 'run', None, mesh)
  _, others = draw.load_params(config_lib.of_run(workdir), workdir, None, mesh)
  assert step == 12_345
  jax.tree.map(np.testing.assert_array_equal, params, others)
  assert adm.step_of('model000500.pt') == 500 and adm.step_of('64x64_diffusion.pt') is None


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_files_in_half_precision_are_read(imported, dtype, tmp_path):
  network, path = imported[0], tmp_path / 'half.pt'
  halves = {name: x.to(dtype) for name, x in network.state_dict().items()}
  torch.save(halves, path)
  adm.import_run(load_config('digits', **OVERRIDES), path, tmp_path / 'run')
  config = config_lib.of_run(tmp_path / 'run')
  _, params = draw.load_params(config, tmp_path / 'run', None, sharding.data_mesh())
  kernel = np.asarray(params['network']['conv_in']['kernel'])
  expected = halves['input_blocks.0.0.weight'].float().permute(2, 3, 1, 0).numpy()
  assert kernel.dtype == np.float32
  np.testing.assert_array_equal(kernel, expected)


def test_a_file_of_another_network_says_what_it_is():
  """By names and shapes alone, as the files of guided-diffusion have them."""
  for reference, says in (
    (adm_pytorch.ADM_64, 'It fits --config configs/imagenet64.py.'),
    (adm_pytorch.ADM_128, 'It fits --config configs/imagenet128.py.'),
    (TINY, 'It has 32 channels and 6 input blocks, as none of our configs has.'),
  ):
    with torch.device('meta'):
      state = adm_pytorch.UNet(reference).state_dict()
    tensors = {name: np.broadcast_to(np.float32(0), x.shape) for name, x in state.items()}
    assert adm.described(tensors) == says
    unconditional = {k: x for k, x in tensors.items() if k != 'label_emb.weight'}
    assert 'knows no classes' in adm.described(unconditional)
  assert adm.described({}) == ''


def test_the_commands_of_the_readme(imported, call, tmp_path):
  """At the size of the tests; the import says in what it computes, and how to change it."""
  _, weights, _ = imported
  importing = [x for x in test_readme.COMMANDS if 'nets.adm --config configs/imagenet64' in x]
  sampling = [x for x in test_readme.COMMANDS if 'generate --workdir runs/adm64' in x]
  assert len(importing) == len(sampling) == 1
  changes = OVERRIDES | {'model.dtype': 'bfloat16'}
  text = {k: ','.join(map(str, v)) if isinstance(v, tuple) else v for k, v in changes.items()}
  here = {'configs/imagenet64.py': 'configs/digits.py', '64x64_diffusion.pt': str(weights)}
  here['runs/adm64'] = str(tmp_path / 'run')
  _, *words = importing[0].split()
  fields = [f'--set={k}={v}' for k, v in text.items()]
  done = call(adm, *(here.get(word, word) for word in words), *fields)
  assert done.returncode == 0, done.stderr
  assert 'computes in bfloat16' in done.stdout
  assert 'import it again with --set model.dtype=float32' in done.stdout
  _, *words = sampling[0].split()
  less = ('--num_samples=2', '--set=sample.sampler.num_steps=5')
  done = call(sample, *(here.get(word, word) for word in words), *less)
  assert done.returncode == 0, done.stderr
