"""The page of likelihoods: which runs it is of. It runs whole in tests/test_readme.py."""

import pytest

from cfg_jax.core.errors import UserError
from experiments import bits_per_dim


def test_a_run_or_each_model_of_a_sweep_by_what_sets_it_apart(tmp_path):
  for name in ('p_uncond=0.1,schedule=fixed', 'p_uncond=0.1', 'p_uncond=0.1,num_steps=16'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'config.json').touch()
  (tmp_path / 'jobs').mkdir()
  found = bits_per_dim.models(tmp_path)
  assert list(found) == ['', 'num_steps=16', 'schedule=fixed']
  ends = ['', ',num_steps=16', ',schedule=fixed']
  assert [path.name for path in found.values()] == [f'p_uncond=0.1{end}' for end in ends]
  (tmp_path / 'p_uncond=0.15').mkdir()
  (tmp_path / 'p_uncond=0.15' / 'config.json').touch()
  assert bits_per_dim.models(tmp_path)['p_uncond=0.15'] == tmp_path / 'p_uncond=0.15'
  run = tmp_path / 'p_uncond=0.1'
  assert bits_per_dim.models(run) == {'': run}


def test_a_folder_without_runs_is_told_in_one_line(tmp_path):
  with pytest.raises(UserError, match='is neither a run nor a sweep of runs: train one first'):
    bits_per_dim.models(tmp_path)
