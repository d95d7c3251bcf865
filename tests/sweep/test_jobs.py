"""A sweep's jobs: their shares of the work."""

import pytest

from cfg_jax.sweep import grid, jobs


@pytest.fixture
def run(tiny):
  return grid.runs_of(tiny, {'method.p_uncond': [0.1]})[0]


@pytest.mark.parametrize('n', (1, 2, 3, 20, 33))
def test_parts_are_the_whole_and_do_not_overlap(run, tmp_path, n):
  parts = [jobs.Job(tmp_path, run, 'generate', 0, (k, n)).part_of(20) for k in range(n)]
  assert [i for part in parts for i in part] == list(range(20))
  assert max(map(len, parts)) - min(map(len, parts)) <= 1
