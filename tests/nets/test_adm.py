"""Importing ADM's published networks, against ADM in PyTorch at rich random weights."""

# ruff: noqa: E402
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='pip install -e .[parity]')

from cfg_jax.core import config as config_lib
from cfg_jax.equations import samplers as sampling
from cfg_jax.equations.conditioning import Cond, given
from cfg_jax.generate import draw as generate
from cfg_jax.generate.store import sample_sets
from cfg_jax.methods import drawing
from cfg_jax.nets import adm, adm_layout, unet
from cfg_jax.nets.embed import adm_lambdas
from experiments import adm_pytorch
from experiments.adm_pytorch import ours, tensors_of, to_torch
from tests.conftest import load_config, run
from tests.nets.tiny_adm import OVERRIDES

BOUND = 1e-4  # relative, float32
SMALL = dict(channels=64, channel_mults=(1, 2), num_blocks=1, attention_resolutions=(8,))
# Two networks of ADM's two kinds: attention in the newer and the older order.
KINDS = {
  'adm64': adm_pytorch.ADM(
    16, **SMALL, head_channels=32, num_heads=None, new_attention_order=True, num_classes=7
  ),
  'adm128': adm_pytorch.ADM(
    16, **SMALL, head_channels=None, num_heads=4, new_attention_order=False, num_classes=7
  ),
}
TIMES = np.array([0, 250, 998])
CLASSES = np.array([6, 0, 3])


@functools.cache
def apply_fn(config: unet.UNetConfig):
  """Compiled once for all tests of the same network."""
  return jax.jit(unet.apply_fn(config))


class Pair:
  """The reference and what it says of fixed inputs."""

  def __init__(self, kind: str):
    self.reference, self.heads_first = KINDS[kind], kind == 'adm128'
    self.lambda_embedding = 'adm_linear' if self.heads_first else 'adm_cosine'
    self.network = adm_pytorch.random(self.reference)
    self.tensors = tensors_of(self.network)
    size = self.reference.image_size
    z = np.random.default_rng(0).normal(size=(len(TIMES), size, size, 3)).astype(np.float32)
    lam = adm_lambdas(self.lambda_embedding)[TIMES].astype(np.float32)
    self.inputs = z, lam, given(jnp.asarray(CLASSES))
    eps = self.network(to_torch(z), torch.tensor(TIMES), torch.tensor(CLASSES))[:, :3]
    eps.square().mean().backward()
    self.eps = eps.detach().permute(0, 2, 3, 1).numpy()
    self.grads = {name: p.grad.numpy() for name, p in self.network.named_parameters()}

  def convert(self, tensors=None, heads_first=None, **changes):
    config = ours(self.reference, **{'lambda_embedding': self.lambda_embedding} | changes)
    heads_first = self.heads_first if heads_first is None else heads_first
    return config, adm_layout.convert(tensors or self.tensors, config, heads_first)

  def error(self, tensors=None, heads_first=None, **changes) -> float:
    """Of our ε, relative to the reference's largest."""
    config, params = self.convert(tensors, heads_first, **changes)
    eps = apply_fn(config)(params, *self.inputs)
    return float(np.abs(eps - self.eps).max() / np.abs(self.eps).max())


@pytest.fixture(scope='module', params=KINDS)
def pair(request):
  return Pair(request.param)


@pytest.mark.parametrize(
  'reference, parameters',
  [(adm_pytorch.ADM_64, 295_904_454), (adm_pytorch.ADM_128, 421_529_606)],
)
def test_the_reference_has_the_published_number_of_parameters(reference, parameters):
  with torch.device('meta'):
    network = adm_pytorch.UNet(reference)
  assert sum(p.numel() for p in network.parameters()) == parameters


def test_output_is_adms(pair):
  assert pair.error() <= BOUND


def swap_halves(tensors, part, axis=0):
  """The tensors with the two halves of those called *part* exchanged."""
  return {
    name: np.roll(x, x.shape[axis] // 2, axis) if part in name else x for name, x in tensors.items()
  }


MISTAKES = {
  'attention order': lambda p: dict(heads_first=not p.heads_first),
  'head split': lambda p: dict(head_channels=None, num_heads=1),
  'scale for shift': lambda p: dict(tensors=swap_halves(p.tensors, 'emb_layers')),
  'sines first': lambda p: dict(tensors=swap_halves(p.tensors, 'time_embed.0.weight', 1)),
  'variance for ε': lambda p: dict(tensors=swap_halves(p.tensors, 'out.2')),
  'schedule': lambda p: dict(lambda_embedding='arctan'),
  'kernels mirrored': lambda p: dict(
    tensors={k: x[..., ::-1] if x.ndim == 4 else x for k, x in p.tensors.items()}
  ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_seen(pair, mistake):
  assert pair.error(**MISTAKES[mistake](pair)) > 100 * BOUND


def test_gradients_are_adms(pair):
  config, params = pair.convert(remat=pair.heads_first)  # one pair without, one with
  apply = unet.apply_fn(config)
  got = jax.jit(jax.grad(lambda p: jnp.square(apply(p, *pair.inputs)).mean()))(params)
  _, want = pair.convert(pair.grads)  # gradients are laid out as what they are of
  got['class_emb'], want['class_emb'] = (
    {'embedding': g['class_emb']['embedding'][:-1]}
    for g in (got, want)  # ADM has no ∅
  )
  for (path, g), w in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want)):
    error = np.linalg.norm(g - w) / np.linalg.norm(w)
    assert error <= BOUND, f'{jax.tree_util.keystr(path)}: {error:.1e}'


def test_bfloat16_is_off_by_about_a_hundredth(pair):
  config, params = pair.convert(dtype='bfloat16')
  eps = apply_fn(config)(params, *pair.inputs)
  error = np.linalg.norm(eps - pair.eps) / np.linalg.norm(pair.eps)
  assert eps.dtype == np.float32 and 1e-3 < error < 2e-2


def test_bfloat16_keeps_norms_softmax_and_parameters_in_float32():
  config = ours(KINDS['adm64'], 'adm_cosine', dtype='bfloat16')
  params = jax.eval_shape(lambda: unet.create_params(config, 0))
  assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype('float32')}
  spec = [jax.ShapeDtypeStruct(shape, 'f4') for shape in ((1, 16, 16, 3), (1,))]
  spec.append(Cond(jax.ShapeDtypeStruct((1,), 'i4'), jax.ShapeDtypeStruct((1,), bool)))
  jaxpr = jax.make_jaxpr(unet.apply_fn(config))(params, *spec)
  dtypes = {'exp': set(), 'rsqrt': set(), 'conv_general_dilated': set()}
  _input_dtypes(jaxpr.jaxpr, dtypes)
  assert dtypes['exp'] == dtypes['rsqrt'] == {'float32'}  # softmax; norms
  assert dtypes['conv_general_dilated'] == {'bfloat16'}


def _input_dtypes(jaxpr, found):
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in found:
      found[eqn.primitive.name].add(str(eqn.invars[0].aval.dtype))
    for sub in jax.extend.core.jaxprs_in_params(eqn.params):
      _input_dtypes(sub, found)


def test_generate_samples_what_the_original_network_says(imported):
  network, _, workdir = imported
  config = config_lib.of_run(workdir)
  step = generate.generate(config, workdir)
  assert step == config.train.num_steps == 540_000
  [(images, labels)] = sample_sets(config.sample, step)[0].read(workdir, 2)

  schedule = adm_lambdas('adm_cosine')

  def network_eps(z, lam):
    t = np.interp(-np.asarray(lam), -schedule, np.arange(1000))
    with torch.inference_mode():
      eps = network(to_torch(z), torch.tensor(t, dtype=torch.float32), torch.tensor(labels))
    return jnp.asarray(eps[:, :3].permute(0, 2, 3, 1).numpy())

  with jax.disable_jit():  # the loop hands PyTorch arrays that have values
    x = sampling.sample(
      network_eps,
      drawing.sample_keys(config.sample.seed, jnp.arange(2)),
      (64, 64, 3),
      num_steps=3,
      v=config.sample.sampler.v,
      lambda_min=float(schedule[-1]),
      lambda_max=float(schedule[0]),
      clip_x=True,
    )
  difference = np.abs(np.asarray(drawing.to_uint8(x), int) - images)
  assert difference.max() <= 1 and difference.mean() < 0.01
  assert images.std() > 20


def test_guidance_without_a_trained_null_class_is_refused(imported):
  done = run('cfg_jax.generate', '--workdir', str(imported[2]), '--w', '0,1')
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
  assert 'never seen (method.p_uncond=0): use --w 0' in done.stderr


def saved(path, tensors):
  torch.save({name: torch.tensor(x) for name, x in tensors.items()}, path)
  return path


def test_a_wrong_file_is_one_line_that_names_the_tensor(imported, tmp_path):
  network, _, _ = imported
  tensors, path = tensors_of(network), tmp_path / 'wrong.pt'
  without = {k: x for k, x in tensors.items() if k != 'label_emb.weight'}
  other = tensors | {'middle_block.1.qkv.weight': np.zeros((96, 32), np.float32)}
  for wrong, says in (
    (without, r'tensor label_emb.weight is missing in'),
    (tensors | {'encoder.0.weight': np.zeros(1)}, r'tensor encoder.0.weight is unexpected in'),
    (other, r'tensor middle_block.1.qkv.weight has shape \(96, 32\), not \(96, 32, 1\)'),
  ):
    with pytest.raises(ValueError, match=rf'^--weights={saved(path, wrong)}: {says}') as error:
      adm.import_run(load_config('digits', **OVERRIDES), path, tmp_path / 'run')
    assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('tensors', 'says'),
  [
    (None, 'wrong.pt is no readable PyTorch state dictionary'),
    (
      {'conv.weight': np.zeros(3)},
      'wrong.pt: tensor label_emb.weight and 196 more are missing, tensor conv.weight is',
    ),
  ],
)
def test_a_wrong_file_ends_the_command_in_one_line(tensors, says, tmp_path):
  path = tmp_path / 'wrong.pt'
  saved(path, tensors) if tensors else path.write_bytes(b'no weights')
  flags = [
    f'--config.{k}={",".join(map(str, v)) if isinstance(v, tuple) else v}'
    for k, v in OVERRIDES.items()
  ]
  done = run(
    'cfg_jax.nets.adm',
    *('--config', 'configs/digits.py', '--workdir', str(tmp_path / 'run')),
    *('--weights', str(path)),
    *flags,
  )
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
  assert says in done.stderr
  assert not (tmp_path / 'run').exists()


def test_other_images_and_used_folders_are_refused(imported, tmp_path):
  _, weights, workdir = imported
  with pytest.raises(ValueError, match="data.name='digits' has 8×8 images"):
    adm.import_run(load_config('digits'), weights, tmp_path / 'run')
  with pytest.raises(ValueError, match='is not empty: name a new one'):
    adm.import_run(load_config('digits', **OVERRIDES), weights, workdir)


@pytest.mark.slow
@pytest.mark.parametrize('dtype, bound', [('float32', BOUND), ('bfloat16', 2e-2)])
def test_adm64_at_full_width(dtype, bound):
  network = adm_pytorch.random(adm_pytorch.ADM_64)
  z = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
  with torch.inference_mode():
    eps = network(to_torch(z), torch.tensor([500]), torch.tensor([7]))[:, :3]
  eps = eps.permute(0, 2, 3, 1).numpy()
  config = ours(adm_pytorch.ADM_64, 'adm_cosine', dtype=dtype)
  params = adm_layout.convert(tensors_of(network), config, heads_first=False)
  lam = np.float32(adm_lambdas('adm_cosine')[[500]])
  got = jax.jit(unet.apply_fn(config))(params, z, lam, given(jnp.array([7])))
  assert np.linalg.norm(got - eps) / np.linalg.norm(eps) <= bound
