"""The lab of guidance rules: what it compares, at which cost, and what it says of it."""

import numpy as np
import pytest

from cfg_jax.core import config as config_lib
from cfg_jax.core import evals, steps
from cfg_jax.equations.guidance import rules
from cfg_jax.report.curves import Curve
from cfg_jax.sweep import grid
from experiments import guidance_lab as lab
from tests.conftest import TINY, load_config


def test_every_rule_on_the_same_noises_and_each_interval_guides_the_calls_it_names(monkeypatch):
  for name, value in (('newest', 1100), ('ema_digest', 'abc')):
    monkeypatch.setattr(steps, name, lambda *_, value=value: value)
  monkeypatch.setattr('cfg_jax.methods.guides.problems', lambda config: ())  # none is there
  config, found, named = load_config('digits'), set(), {}
  for name, axes in lab.ways(lab.Path('run'), 1100).items():
    [run] = grid.runs_of(config, grid.parse(axes, config))
    assert run.name == 'p_uncond=0.1'
    assert [s.config.sample.seed for s in run.samplings] == [0, 1, 2]
    sample = run.samplings[0].config.sample
    found.add(sample.guidance.rule)
    lam = lab._visited(run.samplings[0].config)
    assert len(lam) == 6
    if name.startswith('interval'):
      inside = (sample.guidance.lo <= lam) & (lam < sample.guidance.hi)
      named[name] = list(np.flatnonzero(inside) + 1)
    if name.startswith('autoguidance'):
      named[name] = sample.guidance.guide_step
  assert found == {*rules.RULES} - {'mean_shift', 'apg_comfyui', 'apg_diffusers'}
  assert named == {
    'interval, call 3 of 6': [3],
    'interval, call 4 of 6': [4],
    'interval, call 5 of 6': [5],
    'interval, calls 3 and 4': [3, 4],
    'interval, calls 4 and 5': [4, 5],
    'interval, calls 3 to 5': [3, 4, 5],
    'autoguidance, a tenth': 110,
    'autoguidance, half': 550,
  }


def way(name, distances, calls, w=(0.0, 0.1, 1.0)):
  """A way with these mean distances over w, of three seeds whose gains differ by little."""
  shared, moved = np.array([[-0.5], [0.0], [0.5]]), 0.01 * calls * np.array([[1], [0], [-1]])
  by_seed = np.array(distances) + shared + moved
  members = tuple(Curve('', {}, 'FD', np.array(w), {'FD': d}) for d in by_seed)
  metrics = {k: np.array(distances) for k in ('FD', 'IS', 'precision', 'recall')}
  errors = {k: np.full(len(w), 0.3) for k in metrics}
  return lab.Way(name, Curve('', {}, 'FD', np.array(w), metrics, errors, {}, members), calls, calls)


def test_what_reaches_plain_guidance_is_said_or_what_is_nearest():
  plain = way('plain', [9.0, 8.0, 20.0], 2.0)
  dear = way('dear', [7.0, 9.0], 2.0, w=(0.1, 1.0))
  for least, words in (
    (7.5, 'In 1.3 calls a step or fewer, this reaches it:'),
    (8.5, 'In 1.3 calls a step or fewer, none reaches it; the nearest is'),
  ):
    cheap = way('cheap', [12.0, least], 1.25, w=(0.1, 1.0))
    far = way('far', [13.0, 14.0], 1.25, w=(0.1, 1.0))
    said = lab.findings([plain, dear, cheap, far])
    assert said[0].startswith('Plain guidance: least FD 8.00 ± 0.30 at w = 0.1, in 2 ')
    assert said[0].endswith('is +1 ± 0 (more than noise) from it.')
    assert said[1] == words
    assert said[2].startswith('  cheap, FD') and '1.25 calls a step' in said[2]
    assert f'{least - 8:+.4f} ± ' in said[2]
    assert said[3].startswith('The least of all is dear, FD 7.00')
    assert lab.table([plain, dear, cheap, far]).count('\n') == 6


KEPT = ('classifier_free', 'interval, call 4 of 6', 'adaptive, θ = 0.98', 'autoguidance, a tenth')


@pytest.mark.slow
def test_the_command_at_a_tiny_size_and_again(call, data_dir, tmp_path, monkeypatch):
  whole = lab.ways
  monkeypatch.setattr(lab, 'ways', lambda *given: {name: whole(*given)[name] for name in KEPT})
  sets = {k: v for k, v in TINY.items() if not isinstance(v, tuple)} | {'data.dir': data_dir}
  argv = ['--workdir', tmp_path, *(f'--set={k}={v}' for k, v in sets.items())]
  done = call(lab, *argv)
  assert done.returncode == 0, done.stderr
  text = (tmp_path / 'guidance_lab.txt').read_text()
  assert text.split('\n\n')[0] in done.stdout
  assert (tmp_path / 'guidance_lab.png').stat().st_size > 20_000
  config = config_lib.of_run(tmp_path / 'p_uncond=0.1')
  config = config_lib.change(config, ['sample.num_samples=20'])
  found = lab.read(tmp_path, config)
  assert tuple(w.name for w in found) == KEPT
  plain, interval, adaptive, auto = found
  # Four calls of the network, of which an interval of −2 ≤ λ < 1 guides the second.
  assert (plain.calls, interval.calls, auto.calls) == (2, 1.25, 2)
  assert 1 <= adaptive.alone <= adaptive.calls <= 2
  run, changes = tmp_path / 'p_uncond=0.1', [f'{lab.RULE}=adaptive', 'sample.guidance.theta=2']
  assert lab.count(config_lib.change(config, changes), run, 0.3) == (2, 2)  # they never agree
  for w in found:
    assert len(w.curve.members) == 3 and np.isfinite(w.curve.values('FD-digits')).all()
  for name in KEPT:
    assert f'| {name} | ' in text
  lines = evals.read(tmp_path / 'p_uncond=0.1' / 'evals.jsonl')
  again = call(lab, *argv)
  assert again.returncode == 0, again.stderr
  assert evals.read(tmp_path / 'p_uncond=0.1' / 'evals.jsonl') == lines
  assert (tmp_path / 'guidance_lab.txt').read_text() == text
