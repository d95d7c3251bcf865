"""What the tests of the command share: images, their reference and a run, to be spoiled."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.evaluate import make_reference
from cfg_jax.evaluate.extractors.digits import DigitsExtractor
from cfg_jax.evaluate.runs import evaluate as evaluate_run
from cfg_jax.generate.store import sample_sets
from experiments import train_digits_classifier
from tests.conftest import TINY, load_config


@pytest.fixture(scope='module')
def made(tmp_path_factory, data_dir):
  """good.npz, digits; ours.npz, their reference; run, samples of which only w = 0 is evaluated."""
  folder = tmp_path_factory.mktemp('made')
  np.savez(folder / 'good.npz', digits())
  ours = folder / 'ours.npz'
  make_reference.make(folder / 'good.npz', ours, DigitsExtractor(), quantisation='round')
  config = load_config('digits', **TINY, **{'data.dir': str(data_dir)})
  config_lib.record(config, folder / 'run')
  checkpoints = Checkpoints(folder / 'run', keep=1)
  checkpoints.save(4, {'step': jnp.int32(4)}, {})
  checkpoints.close()
  for sample_set in sample_sets(config.sample, 4):
    sample_set.write(folder / 'run', 0, digits(20), np.zeros(20, np.int32))
  config.sample.guidance.w = (0.0,)
  evaluate_run(config, folder / 'run', 4, reference_path=ours)
  return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
  """A copy to spoil; $CFG_JAX_INCEPTION lies in it."""
  shutil.copytree(made, tmp_path, dirs_exist_ok=True)
  monkeypatch.setenv('CFG_JAX_INCEPTION', str(tmp_path / 'weights.pth'))
  return tmp_path


def digits(n=30):
  return train_digits_classifier.split()[0][0][:n]


def of_samples(folder, samples='good.npz', reference='ours.npz'):
  words = ('samples', folder / samples)
  return [*words, '--reference', folder / reference, '--extractor=digits']
