"""A sweep as data: which models are trained, and how each of them is sampled.

An axis is a field of the config, or `step`, with its values. Axes of `sample`, `evaluate` and
`step` are about sampling, and share a model. Every other axis makes models of its own, each in a
folder that is named by it: `p_uncond=0.1`, `p_uncond=0.1,learning_rate=0.001`.
"""

import copy
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ml_collections

from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import steps_on_disk
from cfg_jax.core.errors import UserError
from cfg_jax.generate.draw import sample_sets

Axes = dict[str, list]


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

  Raises ValueError where there is no such field, no value, or one of another type.
  """
  axes = {}
  for text in texts:
    field, _, values = text.partition('=')
    if field in axes:
      raise UserError(f'--grid {field} is given twice: join its values with commas.')
    if not values:
      raise UserError(f'--grid {text} names no value, so the grid is empty: FIELD=VALUE,VALUE,….')
    kind = float if field == 'sample.w' else _type(field, config)
    axes[field] = [_value(value, kind, text) for value in values.split(',')]
  if not axes:
    raise UserError('--grid names no axis, so the grid is empty: FIELD=VALUE,VALUE,….')
  return axes


def _type(field: str, config: ml_collections.ConfigDict) -> type:
  if field == 'step':
    return int
  *groups, name = field.split('.')
  try:
    for group in groups:
      config = config[group]
    kind = config.get_type(name)
  except (AttributeError, KeyError, TypeError):
    raise UserError(f'--grid {field}: the config has no such field.') from None
  if kind not in (bool, int, float, str):
    raise UserError(f'--grid {field}: an axis takes single values, and this is a {kind.__name__}.')
  return kind


def _value(text: str, kind: type, axis: str) -> bool | int | float | str:
  try:
    value = {'true': True, 'false': False}[text.lower()] if kind is bool else kind(text)
  except (KeyError, ValueError):
    value = math.nan
  if isinstance(value, float) and not math.isfinite(value):
    names = {bool: 'true or false', int: 'a whole number', float: 'a number'}
    raise UserError(f'--grid {axis}: {text!r} is not {names[kind]}.')
  if isinstance(value, str) and '/' in value:
    raise UserError(f'--grid {axis}: {text!r} cannot be part of a folder name.')
  return value


def runs_of(config: ml_collections.ConfigDict, axes: Axes) -> list[Run]:
  """Every model and sampling of a grid, in the order of its axes.

  Raises ValueError where a config is wrong, or two cells would have one place on disk.
  """
  config = copy.deepcopy(config)
  axes = dict(axes)
  config.sample.w = tuple(axes.pop('sample.w', config.sample.w))
  of_sampling = [f for f in axes if f == 'step' or f.startswith(('sample.', 'evaluate.'))]
  of_training = [f for f in axes if f not in of_sampling]
  runs = []
  for values in itertools.product(*(axes[f] for f in of_training)):
    model = copy.deepcopy(config)
    model.update_from_flattened_dict(dict(zip(of_training, values)))
    samplings = []
    for settings in itertools.product(*(axes[f] for f in of_sampling)):
      changes = dict(zip(of_sampling, settings))
      sampling = Sampling(copy.deepcopy(model), changes.pop('step', model.train.num_steps))
      sampling.config.update_from_flattened_dict(changes)
      config_lib.validate(sampling.config, 1)
      samplings.append(sampling)
    runs.append(Run(_name(model, of_training), model, tuple(samplings)))
  _check_identities(runs)
  return runs


def _name(config, fields):
  """p_uncond always, then what else is an axis."""
  parts = []
  for field in dict.fromkeys(('train.p_uncond', *fields)):
    value = config_lib.flat(config.to_dict())[field]
    shown = f'{value:g}' if isinstance(value, float) else value
    parts.append(f'{field.removeprefix("train.")}={shown}')
  return ','.join(parts)


def _check_identities(runs):
  seen = set()
  for run in runs:
    for s in run.samplings:
      for sample_set in sample_sets(s.config, s.step):
        cell = f'{run.name}/{sample_set.path}'
        identity = cell, s.config.sample.num_samples, s.config.evaluate.extractor
        if identity in seen:
          raise UserError(f'two cells of the grid are both {cell}: name each value of --grid once.')
        seen.add(identity)


def check_workdir(
  workdir: Path, config: ml_collections.ConfigDict, axes: Axes, runs: list[Run]
) -> None:
  """Raises ValueError where workdir was made by another config, or lacks a checkpoint asked for."""
  config_lib.hold_against(
    config, workdir / 'sweep.json', (*config_lib.MAY_CHANGE, 'train.p_uncond', *axes)
  )
  for run in runs:
    config_lib.hold_against(run.config, workdir / run.name / 'config.json')
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


def write(workdir: Path, config: ml_collections.ConfigDict, axes: Axes) -> None:
  """Records the sweep in workdir/sweep.json."""
  text = json.dumps({'config': json.loads(config.to_json()), 'grid': axes}, indent=2)
  config_lib.write_atomically(workdir / 'sweep.json', text + '\n')


def read(workdir: Path) -> tuple[ml_collections.ConfigDict, Axes]:
  """What `write` wrote; ValueError where there is none."""
  path = workdir / 'sweep.json'
  if not path.exists():
    raise UserError(f'--config is missing, and --workdir={workdir} holds no sweep ({path.name}).')
  return config_lib.read(path), json.loads(path.read_text())['grid']
