"""What the tests of ADM's import share."""

import pytest


@pytest.fixture(scope='session')
def imported(tmp_path_factory):
  """(reference network, weights, workdir) of an imported run."""
  from tests.nets import tiny_adm  # here: it needs PyTorch

  return tiny_adm.make(tmp_path_factory.mktemp('adm'))
