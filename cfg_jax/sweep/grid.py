"""A sweep as data: which models are trained, and how each of them is sampled.

An axis is a field of the config, or `step`, with its values; a grid is all combinations of its
axes' values; a sweep is one grid or several. Axes of `sample`, `evaluate` and `step` are about
sampling, and share a model. Every other axis makes models of its own, each in a folder that is
named by it: `p_uncond=0.1`, `p_uncond=0.1,learning_rate=0.001`.
"""

import copy
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ml_collections

from cfg_jax import papers
from cfg_jax.core import config as config_lib
from cfg_jax.core import files
from cfg_jax.core.checkpoint import steps_on_disk
from cfg_jax.core.errors import UserError
from cfg_jax.core.versions import new_field
from cfg_jax.evaluate.owners import OWNERS
from cfg_jax.generate.store import sample_sets
from cfg_jax.methods import drawing

Axes = dict[str, list]
W = 'sample.guidance.w'  # a list: its values are drawn together, from one noise, by one program
OF_SAMPLES = ('sample', 'evaluate')  # sections that say nothing of the model
# What the paper's own sweep varies is in the name of every model.
ALWAYS_NAMED = tuple(axis.partition('=')[0] for axis in papers.DEFAULT.grid)


class Sampling(NamedTuple):
  """One way to sample a model: for every w of config.sample, from the checkpoint of `step`."""

  config: ml_collections.ConfigDict
  step: int


class Run(NamedTuple):
  """One model: its folder in the work directory, its config, and how it is sampled."""

  name: str
  config: ml_collections.ConfigDict
  samplings: tuple[Sampling, ...]


def parse(texts: Sequence[str], config: ml_collections.ConfigDict) -> Axes:
  """Axes from 'FIELD=VALUE,VALUE,…', the values of the field's type in config.

  An axis that names a part (a solver, a grid of λ) brings the fields of its first value, which the
  axes after it may have. Raises UserError where there is no such field, no value, or one of another
  type.
  """
  axes, config = {}, config.copy_and_resolve_references().unlock()
  for text in texts:
    field, _, values = text.partition('=')
    if field in axes:
      raise UserError(f'--grid {field} is given twice: join its values with commas.')
    if not values:
      raise UserError(f'--grid {text} names no value, so the grid is empty: FIELD=VALUE,VALUE,….')
    like = {'step': 0, W: 0.0}.get(field)
    if like is None:
      config_lib.bring(config, field)
      like = config_lib.get(config, field)
    if isinstance(like, tuple | list):
      raise UserError(f'--grid {field}: an axis takes single values, and this is a list.')
    axes[field] = [config_lib.parse(value, like, field) for value in values.split(',')]
    if field == 'step' and not all(isinstance(v, int) and v > 0 for v in axes[field]):
      raise UserError(f'--grid {text}: steps of checkpoints are whole numbers from 1.')
    if field.partition('.')[0] not in OF_SAMPLES and any('/' in str(v) for v in axes[field]):
      raise UserError(f'--grid {text}: a value with / cannot be part of a folder name.')
    if isinstance(like, str):
      config_lib.assign(config, field, axes[field][0])
  if not axes:
    raise UserError('--grid names no axis, so the grid is empty: FIELD=VALUE,VALUE,….')
  return axes


def runs_of(config: ml_collections.ConfigDict, *grids: Axes) -> list[Run]:
  """Every model, in the order of the grids' axes, with every sampling of it that a grid asks for.

  Raises UserError where a config is wrong, or two cells would have one place on disk.
  """
  runs = {}
  for axes in grids:
    of_grid = list(_runs(config, dict(axes)))
    _check_identities(of_grid)
    for run in of_grid:
      before = runs.setdefault(run.name, run)
      if any(run.config[k] != before.config[k] for k in run.config if k not in OF_SAMPLES):
        raise UserError(f'two models of the sweep are both {run.name}: name each value once.')
      new = tuple(s for s in run.samplings if s not in before.samplings)
      runs[run.name] = before._replace(samplings=before.samplings + new)
  _check_identities(runs.values())
  return list(runs.values())


def _runs(config, axes):
  """The runs of one grid."""
  config = copy.deepcopy(config)
  config_lib.assign(config, W, tuple(axes.pop(W, config_lib.get(config, W))))
  config_lib.check(config, OWNERS, 1)
  of_sampling = [f for f in axes if f == 'step' or f.partition('.')[0] in OF_SAMPLES]
  of_training = [f for f in axes if f not in of_sampling]
  for values in itertools.product(*(axes[f] for f in of_training)):
    model = copy.deepcopy(config)
    with model.unlocked():
      for field, value in zip(of_training, values):
        config_lib.bring(model, field)
        config_lib.assign(model, field, value)
    samplings = []
    for settings in itertools.product(*(axes[f] for f in of_sampling)):
      changes = dict(zip(of_sampling, settings))
      sampling = Sampling(copy.deepcopy(model), changes.pop('step', model.train.num_steps))
      with sampling.config.unlocked():
        for field, value in changes.items():
          config_lib.assign(sampling.config, field, value)
      config_lib.check(sampling.config, OWNERS, 1)
      drawing.check_guidance(sampling.config, sampling.config.sample.guidance.w)
      samplings.append(sampling)
    yield Run(model_name(model, of_training), model, tuple(samplings))


def model_name(config: ml_collections.ConfigDict, fields: Sequence[str]) -> str:
  """The model's folder: `ALWAYS_NAMED`, where its method has them, then what else is an axis."""
  values, parts = config_lib.flat(config.to_dict()), []
  for field in dict.fromkeys((*(f for f in ALWAYS_NAMED if f in values), *fields)):
    value = values[field]
    shown = f'{value:g}' if isinstance(value, float) else value
    parts.append(f'{field.removeprefix("train.").removeprefix("method.")}={shown}')
  return ','.join(parts) or 'model'


def _check_identities(runs):
  seen = set()
  for run in runs:
    for s in run.samplings:
      for sample_set in sample_sets(s.config.sample, s.step):
        cell = f'{run.name}/{sample_set.path}'
        identity = cell, s.config.sample.num_samples, s.config.evaluate.extractor
        if identity in seen:
          raise UserError(f'two cells of the grid are both {cell}: name each value of --grid once.')
        seen.add(identity)


def check_workdir(
  workdir: Path, config: ml_collections.ConfigDict, grids: Sequence[Axes], runs: list[Run]
) -> None:
  """Raises UserError where workdir was made by another config, or lacks a checkpoint asked for."""
  may_change = (*config_lib.MAY_CHANGE, *ALWAYS_NAMED, *itertools.chain(*grids))
  config_lib.check_unchanged(config, workdir / 'sweep.json', may_change)
  for run in runs:
    config_lib.check_unchanged(run.config, workdir / run.name / 'config.json')
    train = run.config.train
    saved = {*range(train.checkpoint_every, train.num_steps, train.checkpoint_every)}
    kept = {*sorted(saved | {train.num_steps})[-train.keep_checkpoints :]}
    there = {*steps_on_disk(workdir / run.name)}
    for sampling in run.samplings:
      will_be = kept if max(there, default=0) < train.num_steps else set()
      if sampling.step not in will_be | there:
        raise UserError(
          f'step={sampling.step} of {run.name} is not among its checkpoints, '
          f'{sorted(will_be | there)}: see train.checkpoint_every and train.keep_checkpoints.'
        )


def write(workdir: Path, config: ml_collections.ConfigDict, grids: Sequence[Axes]) -> None:
  """Records the sweep in workdir/sweep.json."""
  record = {'config': json.loads(config.to_json()), 'grid': grids[0], 'also': list(grids[1:])}
  files.write_json(workdir / 'sweep.json', files.seal(record))


def read(workdir: Path) -> tuple[ml_collections.ConfigDict, list[Axes]]:
  """What `write` wrote, also in version 1; UserError where there is none."""
  path = workdir / 'sweep.json'
  if not path.exists():
    raise UserError(f'--config is missing, and --workdir={workdir} holds no sweep ({path.name}).')
  config, record = config_lib.read(path), config_lib.read_record(path)
  grids = [record.get('grid'), *record.get('also', ())]
  if not all(isinstance(axes, dict) for axes in grids):
    raise UserError(f'{path} is damaged (no grid): give --config and --grid, which write it again.')
  return config, [{new_field(f): values for f, values in axes.items()} for axes in grids]
