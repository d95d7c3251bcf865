"""The campaign's short form, for CI; the full one is `python -m tests.campaign --out DIR`."""

import pytest

from tests.campaign import bad_inputs, damage, inputs
from tests.conftest import run


def test_the_campaign_is_as_large_as_is_promised():
  cases = inputs.cases()
  assert len({(case.argv, case.config) for case in cases}) == len(cases) >= 300
  assert len(damage.trials()) >= 150 and len(damage.KINDS) >= 20
  assert all(names for _, names in bad_inputs.COMMANDS)


@pytest.mark.slow
def test_three_minutes_of_faults_lose_nothing(tmp_path):
  done = run('tests.campaign', '--out', str(tmp_path), '--short', timeout=1800)
  print(done.stdout)
  assert done.returncode == 0, done.stdout + done.stderr
