"""--extractor=MODULE:CLASS: a network of one's own."""

import json

import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.evaluate import __main__ as evaluate
from cfg_jax.evaluate import extractors
from cfg_jax.evaluate.owners import OWNERS
from tests.evaluate.conftest import digits, of_samples

OWN = '''
import hashlib

import numpy as np


class Means:
  """Means of rows as features, of columns as logits."""

  name, dim, resize, is_public, labels_of = 'means', 8, 'none', False, None
  sha256 = hashlib.sha256(b'1').hexdigest()

  def __call__(self, images):
    x = images[..., 0].astype(np.float32)
    return {'features': x.mean(1), 'logits': x.mean(2)}


class Public(Means):
  is_public = True


class Nameless:
  dim = 8
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
  (tmp_path / 'own_network.py').write_text(OWN)
  monkeypatch.syspath_prepend(tmp_path)


def test_it_is_named_on_the_command_line(own, folder, call):
  np.savez(folder / 'images.npz', digits(20))
  flags = [f'--reference={folder / "images.npz"}', '--extractor=own_network:Means']
  done = call(evaluate, 'samples', folder / 'good.npz', *flags)
  assert done.returncode == 0, done.stderr
  line = json.loads(done.stdout)
  assert line['extractor'] == 'means' and line['distance'] == 'FD-means'
  assert line['metrics']['FD-means'] > 0


def test_what_is_none_is_one_line(own, folder, call):
  for name, says in (
    ('no_such_module:Means', "No module named 'no_such_module'"),
    ('own_network:None', "no attribute 'None'"),
    ('own_network:Nameless', 'lacks name, sha256, resize, is_public, labels_of, __call__'),
    ('own_network:Public', 'is_public must be False'),
    ('clip', 'is none of digits, inception'),
  ):
    done = call(evaluate, *of_samples(folder), f'--extractor={name}')
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert f'--extractor={name}' in done.stderr and says in done.stderr


def test_a_config_may_name_it(tiny, own):
  tiny.evaluate.extractor = 'own_network:Means'
  config_lib.check(tiny, OWNERS, 1)
  assert extractors.make(tiny.evaluate.extractor).dim == 8
  tiny.evaluate.extractor = 'clip'
  with pytest.raises(ValueError, match=r"evaluate.extractor='clip' must be .*MODULE:CLASS"):
    config_lib.check(tiny, OWNERS, 1)
