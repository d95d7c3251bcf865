"""A sweep's grid: cells with places of their own, and what is wrong with one said in one line."""

import json

import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core.errors import UserError
from cfg_jax.generate.store import sample_sets
from cfg_jax.sweep import grid
from tests.conftest import TINY, load_config


def runs_of(config, *texts):
  return grid.runs_of(config, grid.parse(texts, config))


def test_training_axes_make_models_and_sampling_axes_share_them(tiny):
  runs = runs_of(
    tiny,
    'method.p_uncond=0.1,0.50',
    'sample.sampler.num_steps=4,8',
    'train.learning_rate=1e-3,3e-4',
    'sample.ema=true,false',
    'sample.guidance.w=0,0.5,4',
  )
  assert [run.name for run in runs] == [
    f'p_uncond={p},learning_rate={rate}' for p in ('0.1', '0.5') for rate in ('0.001', '0.0003')
  ]
  for run, rate in zip(runs, (1e-3, 3e-4, 1e-3, 3e-4)):
    assert run.config.train.learning_rate == rate
    settings = [(s.config.sample.sampler.num_steps, s.config.sample.ema) for s in run.samplings]
    assert settings == [(4, True), (4, False), (8, True), (8, False)]
    for s in run.samplings:
      assert s.config.sample.guidance.w == (0.0, 0.5, 4.0) and s.step == tiny.train.num_steps
      assert s.config.train == run.config.train
  assert (
    tiny.sample.guidance.w == TINY['sample.guidance.w']
  )  # the caller's config is left as it was


def test_a_model_is_called_by_its_p_uncond_and_what_else_is_an_axis(tiny):
  assert [r.name for r in runs_of(tiny, 'sample.sampler.num_steps=4,8')] == ['p_uncond=0.1']
  names = [r.name for r in runs_of(tiny, 'model.channels=8,16', 'seed=3')]
  assert names == ['p_uncond=0.1,model.channels=8,seed=3', 'p_uncond=0.1,model.channels=16,seed=3']


def test_an_axis_may_be_a_field_that_the_config_leaves_out(tiny):
  runs = runs_of(tiny, 'method.guidance=0.1,1', 'model.late_condition=0,4')
  assert [run.name for run in runs] == [
    f'p_uncond=0.1,guidance={w},model.late_condition={n}' for w in ('0.1', '1') for n in (0, 4)
  ]
  assert [run.config.method.guidance for run in runs] == [0.1, 0.1, 1, 1]
  assert runs[1].samplings[0].config.model.late_condition == 4
  assert 'guidance' not in tiny.method


def test_strengths_that_look_alike_have_samples_of_their_own(tiny):
  [run] = runs_of(tiny, 'sample.guidance.w=0.1,0.10000001')
  first, second = sample_sets(run.samplings[0].config.sample, run.samplings[0].step)
  assert (first.w, second.w) == (0.1, 0.10000001) and first.path != second.path


def test_a_method_without_the_papers_field_is_named_by_the_axes(tiny):
  config = tiny.copy_and_resolve_references().unlock()
  del config.method.p_uncond
  assert grid.model_name(config, ['seed', 'train.num_steps']) == 'seed=0,num_steps=12'


def test_several_grids_share_models_and_no_cell_is_there_twice(tiny, tmp_path):
  ours = grid.parse(['method.p_uncond=0.1,0.2', 'sample.sampler.num_steps=4,8'], tiny)
  heun = ['method.p_uncond=0.2', 'sample.sampler.name=heun', 'sample.sampler.s_churn=0,1']
  other = grid.parse([*heun, 'sample.guidance.w=1'], tiny)
  again = grid.parse(['method.p_uncond=0.1', 'sample.sampler.num_steps=4'], tiny)
  runs = grid.runs_of(tiny, ours, other, again)
  assert [run.name for run in runs] == ['p_uncond=0.1', 'p_uncond=0.2']
  assert runs[0] == grid.runs_of(tiny, ours)[0]
  samplers = [s.config.sample.sampler for s in runs[1].samplings]
  assert [s.name for s in samplers] == ['ddpm', 'ddpm', 'heun', 'heun']
  assert [s.s_churn for s in samplers[2:]] == [0, 1] and 'v' not in samplers[2]
  assert [s.config.sample.guidance.w for s in runs[1].samplings[1:3]] == [(0.0, 1.0), (1.0,)]
  grid.write(tmp_path, tiny, [ours, other, again])
  config, grids = grid.read(tmp_path)
  assert grid.runs_of(config, *grids) == runs

  rate = [grid.parse([f'train.learning_rate={x}'], tiny) for x in ('1e-4', '1.0000001e-4')]
  with pytest.raises(UserError, match='two models of the sweep are both p_uncond=0.1,learning_'):
    grid.runs_of(tiny, *rate)


@pytest.mark.parametrize(
  'texts, says',
  (
    ([], 'the grid is empty'),
    (['method.p_uncond='], 'names no value, so the grid is empty'),
    (['method.p_uncond'], 'names no value, so the grid is empty'),
    (['sample.guidance.w=0,x'], "'x' is not a number"),
    (['sample.guidance.w=0,,1'], "'' is not a number"),
    (['sample.guidance.w=nan'], 'sample.guidance.w=.nan,. must be finite numbers'),
    (['sample.sampler.num_steps=1.5'], 'num_steps=1.5 must be a whole number'),
    (['sample.ema=maybe'], "'maybe' is not true or false"),
    (['train.p_unkond=0.1'], 'the config has no such field'),
    (['train=0.1'], 'the config has no such field'),
    (['model.channel_mults=1,2'], 'takes single values'),
    (['data.dir=/a,/b'], 'cannot be part of a folder name'),
    (['seed=0', 'seed=1'], 'is given twice'),
    (['method.p_uncond=0.1,2'], 'method.p_uncond=2.0 is a probability'),
    # One identity, in several ways.
    (['method.p_uncond=0.1,0.10'], 'two cells of the grid are both p_uncond=0.1/'),
    (['method.p_uncond=0.1,0.10000001'], 'two cells of the grid are both p_uncond=0.1/'),
    (['sample.batch_size=8,16'], 'two cells of the grid are both p_uncond=0.1/'),
    (['sample.guidance.w=0.1,0.10'], 'names a guidance strength twice'),
    (['method.p_uncond=0,0.1'], 'guides with ∅, which this network has never seen'),
  ),
)
def test_what_is_wrong_with_a_grid_is_one_line(tiny, texts, says):
  with pytest.raises(UserError, match=says) as raised:
    runs_of(tiny, *texts)
  assert len(str(raised.value).splitlines()) == 1


def test_another_config_is_refused_and_more_of_the_grid_is_not(tiny, tmp_path):
  def check(config, *texts):
    axes = grid.parse(texts, config)
    grid.check_workdir(tmp_path, config, [axes], grid.runs_of(config, axes))

  axes = grid.parse(['method.p_uncond=0.1'], tiny)
  check(tiny, 'method.p_uncond=0.1')
  grid.write(tmp_path, tiny, [axes])
  [run] = grid.runs_of(tiny, axes)
  config_lib.record(run.config, tmp_path / run.name)
  check(tiny, 'method.p_uncond=0.1,0.2', 'sample.guidance.w=3', 'sample.sampler.num_steps=3')
  check(tiny, 'method.p_uncond=0.1', 'train.learning_rate=1e-4')
  read, [read_axes] = grid.read(tmp_path)
  assert read_axes == {'method.p_uncond': [0.1]}
  assert grid.runs_of(read, read_axes)[0].config.to_dict() == run.config.to_dict()

  other = load_config('digits', **TINY, **{'data.dir': tiny.data.dir, 'train.learning_rate': 1e-4})
  before = {p: p.read_bytes() for p in tmp_path.rglob('*.json')}
  with pytest.raises(ValueError, match='made by another config') as raised:
    check(other, 'method.p_uncond=0.2')  # not even where it has no model yet
  assert 'train.learning_rate: 0.002 → 0.0001' in str(raised.value)
  (tmp_path / 'sweep.json').unlink()
  with pytest.raises(ValueError, match='p_uncond=0.1 was made by another config'):
    check(other, 'method.p_uncond=0.1')
  assert all(p.read_bytes() == b for p, b in before.items() if p.name == 'config.json')


def test_a_checkpoint_that_will_not_be_there_is_told_at_once(tiny, tmp_path):
  # 12 steps, saved at 4, 8 and 12, of which two are kept.
  for step, says in ((8, None), (12, None), (4, r'\[8, 12\]'), (6, r'\[8, 12\]')):
    axes = grid.parse([f'step={step}'], tiny)
    runs = grid.runs_of(tiny, axes)
    if says is None:
      grid.check_workdir(tmp_path, tiny, [axes], runs)
      continue
    with pytest.raises(ValueError, match=f'step={step} of p_uncond=0.1 is not among .*{says}'):
      grid.check_workdir(tmp_path, tiny, [axes], runs)


def test_without_config_the_work_directory_says_what_the_sweep_is(tmp_path):
  with pytest.raises(ValueError, match='--config is missing, and .* holds no sweep'):
    grid.read(tmp_path)


def test_the_record_is_json(tiny, tmp_path):
  grid.write(tmp_path, tiny, [{'sample.guidance.w': [0.0, 0.1]}])
  assert json.loads((tmp_path / 'sweep.json').read_text())['grid'] == {
    'sample.guidance.w': [0.0, 0.1]
  }
