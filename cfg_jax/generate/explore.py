"""One noise under any w: what the slider of experiments/guidance_explorer.ipynb shows.

model = explore.load_pretrained('digits')  # or explore.load('runs/digits/p_uncond=0.1')
images = explore.render(1.5, 0, model)  # one image of each class
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from cfg_jax.core import config as config_lib
from cfg_jax.core import pictures, sharding
from cfg_jax.core.errors import UserError
from cfg_jax.data import registry
from cfg_jax.equations import knobs as knobs_lib
from cfg_jax.equations.guidance import rules
from cfg_jax.generate import pretrained
from cfg_jax.generate.draw import load_params
from cfg_jax.methods import drawing, guides
from cfg_jax.methods.owners import OWNERS


class Model(NamedTuple):
  """A trained network and its sampler, as `config.sample` has it (but for w, seed and labels)."""

  config: ml_collections.ConfigDict
  step: int
  params: Any
  draw: Callable  # (params, indices, c, knobs, seed) → uint8, see `drawing.make_sampler`


def load(workdir: str | Path, *settings: str, step: int | None = None) -> Model:
  """The newest intact checkpoint of a run, or that of `step`.

  settings: FIELD=VALUE, such as 'sample.sampler.num_steps=64'. Raises UserError where there is no
  run, no intact checkpoint, or a wrong setting.
  """
  config = _changed(config_lib.of_run(Path(workdir)), settings)
  mesh = sharding.data_mesh()
  step, params = load_params(config, Path(workdir), step, mesh)
  return Model(config, step, params, drawing.make_sampler(config, mesh))


def load_pretrained(name: str, *settings: str) -> Model:
  """The weights of the package called `name`; settings as in `load`, and its errors."""
  weights, mesh = pretrained.read(name), sharding.data_mesh()
  config = _changed(weights.config, settings)
  params = jax.device_put(pretrained.params(weights, config), sharding.replicated(mesh))
  params |= guides.load(config, mesh)
  return Model(config, weights.step, params, drawing.make_sampler(config, mesh))


def _changed(config, settings):
  config = config_lib.change(config, settings)
  config_lib.check(config, OWNERS, 1)
  return config


def rules_of(model: Model) -> list[str]:
  """The guidance rules that fit the model's pair and solver, which `sample.guidance.rule` takes."""
  found = []
  for name in rules.RULES:
    try:
      _changed(model.config, [f'sample.guidance.rule={name}', 'sample.guidance.w=1'])
      found.append(name)
    except UserError:
      pass
  return found


def knobs_of(rule: str) -> dict[str, tuple[float, float, float]]:
  """(value, least, most) for a slider of each knob that a rule has beside w, by name.

  The default, and of what `rules.RANGES` allows at most 20 to either side of it.
  """
  found = {}
  for name, value in knobs_lib.defaults(rules.RULES[rule]).items():
    least, most, _ = rules.RANGES.get(name, (-math.inf, math.inf, ''))
    found[name] = value, max(least, value - 20), min(most, value + 20)
  return found


def render(
  w: float, seed: int, model: Model, classes: Sequence[int] = range(10), **knobs: float
) -> np.ndarray:
  """Algorithm 2 from one noise for each class: uint8 (classes, H, W, C).

  w: Section 3; −1 is the unconditional model, and shows one image whatever the class. seed: which
  noise; the image of class c is number `seed` of `generate --labels c`. knobs: the rule's, where
  they are not the model's own. w, seed and knobs are traced: only another number of classes
  compiles again. Raises UserError where there is no such class, w or a knob is out of its range, or
  w needs an ∅ that the network has never seen.
  """
  settings = [f'sample.guidance.{name}={value}' for name, value in ({'w': w} | knobs).items()]
  config = _changed(model.config, settings)
  drawing.check_guidance(config, [w])
  num_classes = registry.of(config.data).num_classes
  wrong = [c for c in classes if not 0 <= c < num_classes]
  if wrong or not len(classes):
    raise UserError(f'classes={list(classes)} must be some of 0 to {num_classes - 1}.')
  devices = jax.device_count()
  filled = np.resize(np.array(classes, np.int32), -(-len(classes) // devices) * devices)
  indices = np.full(len(filled), seed, np.int32)
  values = drawing.knobs(config, np.full(len(filled), w, np.float32))
  images = model.draw(model.params, indices, filled, values, np.uint32(config.sample.seed))
  return np.asarray(images)[: len(classes)]


def picture(
  rows: Sequence[np.ndarray],
  pixels: int = 64,
  row_names: Sequence[str] = (),
  column_names: Sequence[str] = (),
) -> bytes:
  """A PNG of rows of images, each (N, H, W, C) uint8, enlarged to about `pixels` a side.

  Gaps are transparent; with names, see `pictures.labelled`, they are white.
  """
  images = pictures.enlarge(np.stack(rows), pixels)
  gap = max(1, images.shape[2] // 16)
  if not (row_names or column_names):
    return pictures.png(pictures.tile(images, gap=gap), optimize=True)
  return pictures.png(pictures.labelled(images, row_names, column_names, gap), optimize=True)
