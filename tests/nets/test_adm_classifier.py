"""Importing ADM's classifiers, against a classifier of its kind in PyTorch at random weights."""

# ruff: noqa: E402
import dataclasses

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='pip install -e .[parity]')

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import sharding
from cfg_jax.core.checkpoint import restore_params
from cfg_jax.nets import adm, adm_layout, encoder
from cfg_jax.nets.embed import adm_lambdas
from experiments.adm_pytorch import ADM_64, UNet, random, tensors_of, to_torch
from tests import test_readme
from tests.conftest import load_config
from tests.nets import adm_classifier_pytorch as reference

BOUND = 1e-5  # relative, float32
TIMES = np.array([0, 1, 500, 999])
# The published two with fewer and narrower layers: attention at two levels and in the middle.
SMALL = {
  64: dict(channels=32, channel_mults=(1, 2, 2), num_blocks=1, attention_resolutions=(32, 16)),
  128: dict(channels=32, channel_mults=(1, 1, 1, 2), num_blocks=1, attention_resolutions=(32, 16)),
}


def small(size, pool='attention'):
  """(the reference's numbers, the config that imports it)."""
  changes = SMALL[size] | {'head_channels': 16}
  numbers = dataclasses.replace(reference.PUBLISHED[size], **changes, pool=pool)
  changes |= {'pool': pool, 'dtype': 'float32'}
  fields = {f'model.{name}': value for name, value in changes.items()}
  return numbers, load_config(f'classifier_imagenet{size}', **fields)


def restored(workdir):
  """The run's config, and its weights."""
  config = config_lib.of_run(workdir)
  mesh = sharding.data_mesh()
  _, params = restore_params(methods.abstract_params(config, mesh), workdir, None, mesh)
  return config, params['network']


def saved(path, tensors):
  torch.save({name: torch.tensor(np.array(x)) for name, x in tensors.items()}, path)
  return path


def error(network, workdir):
  """Of our logits at each time, relative to the reference's largest, of the run in workdir."""
  config, params = restored(workdir)
  size = network.adm.image_size
  z = np.random.default_rng(0).normal(size=(len(TIMES), size, size, 3)).astype(np.float32)
  with torch.inference_mode():
    expected = network(to_torch(z), torch.tensor(TIMES)).numpy()
  lam = adm_lambdas(config.model.lambda_embedding)[TIMES].astype(np.float32)
  logits, _ = jax.jit(encoder.apply_fn(encoder.of(config)))(params, z, lam)
  return np.abs(logits - expected).max(axis=1) / np.abs(expected).max(axis=1)


@pytest.mark.parametrize(
  'size, pool', [(64, 'attention'), (128, 'attention'), (64, 'adaptive'), (64, 'spatial')]
)
def test_logits_are_adms(size, pool, tmp_path):
  numbers, config = small(size, pool)
  network = random(numbers, make=reference.Network)
  path = saved(tmp_path / 'weights.pt', tensors_of(network))
  adm.import_run(config, path, tmp_path / 'run')
  errors = error(network, tmp_path / 'run')
  assert errors.max() <= BOUND, errors


@pytest.mark.slow
@pytest.mark.parametrize('size', (64, 128))
def test_logits_are_adms_at_full_width(size, tmp_path):
  network = random(reference.PUBLISHED[size], make=reference.Network)
  config = load_config(f'classifier_imagenet{size}', **{'model.dtype': 'float32'})
  adm.import_run(config, saved(tmp_path / 'weights.pt', tensors_of(network)), tmp_path / 'run')
  assert error(network, tmp_path / 'run').max() <= BOUND


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
  """(reference, its file, our run)."""
  folder = tmp_path_factory.mktemp('classifier')
  numbers, config = small(64)
  network = random(numbers, make=reference.Network)
  path = saved(folder / '64x64_classifier.pt', tensors_of(network))
  adm.import_run(config, path, folder / 'run')
  return network, path, folder / 'run'


@pytest.mark.parametrize(
  'mistake', ['out.2.qkv_proj', 'middle_block.1.qkv', 'out.2.positional_embedding']
)
def test_a_mistake_of_layout_is_seen(mistake, imported, tmp_path):
  """Either qkv in the other's order, or positions in another: the comparison would tell."""
  tensors = tensors_of(imported[0])
  for name in [name for name in tensors if mistake in name]:
    x = tensors[name]
    if 'positional' in mistake:
      tensors[name] = x[:, ::-1]
    else:  # as if q, k and v of a head followed each other where they do not, or the reverse
      heads = len(x) // 3 // 16
      order = (heads, 3) if 'proj' in mistake else (3, heads)
      tensors[name] = x.reshape(*order, 16, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
  adm.import_run(small(64)[1], saved(tmp_path / 'other.pt', tensors), tmp_path / 'run')
  assert error(imported[0], tmp_path / 'run').max() > 100 * BOUND


@pytest.mark.parametrize('size', reference.PUBLISHED)
def test_every_tensor_of_the_published_files_has_its_place(size):
  """By names and shapes alone; a file in half precision too. Their parameters are the paper's."""
  with torch.device('meta'):
    state = reference.Network(reference.PUBLISHED[size]).state_dict()
  assert (
    sum(x.numel() for x in state.values())
    == {
      64: 65_438_568,
      128: 42_568_040,
      256: 54_096_360,
    }[size]
  )
  tensors = {name: np.broadcast_to(np.float16(0), x.shape) for name, x in state.items()}
  config = load_config(f'classifier_imagenet{min(size, 128)}')
  published, texts = adm.CLASSIFIERS[size], adm.CLASSIFIERS[size].config.split(' --set ')
  config = config_lib.change(config, texts[1:])  # as the message says
  network = encoder.of(config)
  assert network.image_shape == (size, size, 3)
  params = adm_layout.convert(tensors, network, published.heads_first)
  assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype('float32')}
  assert encoder.num_parameters(network) == sum(x.size for x in jax.tree.leaves(params))
  assert adm.described(tensors) == f'It is a classifier, and fits --config {published.config}.'


def test_files_in_half_precision_are_read(imported, tmp_path):
  halves = {name: x.half() for name, x in imported[0].state_dict().items()}
  torch.save(halves, tmp_path / 'half.pt')
  adm.import_run(small(64)[1], tmp_path / 'half.pt', tmp_path / 'run')
  _, params = restored(tmp_path / 'run')
  positions = params['head']['positions']
  expected = halves['out.2.positional_embedding'].float().numpy().T
  assert positions.dtype == np.float32
  np.testing.assert_array_equal(positions, expected)


def test_the_run_is_of_the_times_that_it_was_trained_at(imported):
  config, _ = restored(imported[2])
  other = ['method.times=paper', 'method.noised=false', 'model.lambda_embedding=arctan']
  changed = adm.as_trained(config_lib.change(config, other), adm.CLASSIFIERS[64])
  assert changed.to_dict() == config.to_dict()
  lam = adm_lambdas('adm_cosine')
  assert (config.diffusion.lambda_min, config.diffusion.lambda_max) == (lam[-1], lam[0])
  assert config.method.to_dict() == {'name': 'classifier', 'noised': True, 'times': 'adm_cosine'}
  assert config.model.lambda_embedding == 'adm_cosine' and config.train.num_steps == 300_000


def test_a_wrong_file_is_one_line_that_names_what_is_wrong_and_what_fits(imported, tmp_path):
  tensors, path = tensors_of(imported[0]), tmp_path / 'wrong.pt'
  less = {k: x for k, x in tensors.items() if 'qkv_proj' not in k}
  with torch.device('meta'):
    state = UNet(ADM_64).state_dict()
    published = reference.Network(reference.PUBLISHED[128]).state_dict()
  tell = ('label_emb.weight', 'time_embed.0.weight', 'input_blocks.0.0.weight')
  unet, other = (  # the small ones
    {k: np.zeros(x.shape, 'f4') for k, x in s.items() if x.ndim == 1 or k in tell}
    for s in (state, published)
  )
  flat = tensors | {'out.2.c_proj.weight': tensors['out.2.c_proj.weight'][..., 0]}
  named = 'tensor out.2.qkv_proj.bias and 1 more are missing'
  for wrong, says in (
    (less, f"{named} in ADM's classifier. It is a classifier, and has 32 channels"),
    (less | {'more': np.zeros(1)}, f"{named}, tensor more is unexpected in ADM's classifier."),
    (flat, 'tensor out.2.c_proj.weight has shape (1000, 64), not (1000, 64, 1).'),
    (other, 'It is a classifier, and fits --config configs/classifier_imagenet128.py.'),
    (unet, 'It fits --config configs/imagenet64.py.'),
  ):
    with pytest.raises(ValueError) as raised:
      adm.import_run(small(64)[1], saved(path, wrong), tmp_path / 'run')
    text = str(raised.value)
    assert says in text and '\n' not in text, text
  with pytest.raises(ValueError) as raised:
    adm.import_run(load_config('imagenet64'), saved(path, other), tmp_path / 'run')
  says = 'It is a classifier, and fits --config configs/classifier_imagenet128.py.'
  assert str(raised.value).endswith(says)
  with pytest.raises(ValueError) as raised:
    adm.import_run(load_config('classifier_digits'), path, tmp_path / 'run')
  says = 'are those of configs/classifier_imagenet64.py and configs/classifier_imagenet128.py.'
  assert str(raised.value).endswith(f'8×8 images; the published classifiers {says}')
  assert not (tmp_path / 'run').exists()


def test_the_command_of_the_readme(imported, call, tmp_path):
  """At the size of the tests; it says in what the run computes, and what is next."""
  [line] = [x for x in test_readme.COMMANDS if 'nets.adm --config configs/classifier' in x]
  here = {'64x64_classifier.pt': str(imported[1]), 'runs/guide64': str(tmp_path / 'run')}
  changes = SMALL[64] | {'head_channels': 16}
  text = {k: ','.join(map(str, v)) if isinstance(v, tuple) else v for k, v in changes.items()}
  fields = [f'--set=model.{k}={v}' for k, v in text.items()]
  done = call(adm, *(here.get(word, word) for word in line.split()[1:]), *fields)
  assert done.returncode == 0, done.stderr
  assert 'computes in bfloat16' in done.stdout and 'Sample it' not in done.stdout
  assert f'--set sample.guidance.guide={tmp_path / "run"}' in done.stdout
  jax.tree.map(
    np.testing.assert_array_equal, restored(tmp_path / 'run')[1], restored(imported[2])[1]
  )
