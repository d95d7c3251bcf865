"""The notebook is committed without outputs, pins what it says, and runs from top to bottom."""

import asyncio
import configparser
import json
import re

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

PATH = ROOT / 'experiments' / 'guidance_explorer.ipynb'
CELLS = json.loads(PATH.read_text())['cells']
SOURCE = '\n'.join(''.join(cell['source']) for cell in CELLS)

# At a size that CI can wait for; else the very cells that a user runs. A network starts deaf to the
# class: w does nothing until it has learned a little.
QUICKER = """
WORKDIR = Path({workdir!r})
SETTINGS |= {{'train.num_steps': 30, 'train.warmup_steps': 1, 'train.ema_decay': 0.5}}
SETTINGS |= {{'sample.num_samples': 40, 'data.dir': {data_dir!r}}}
"""
# What a user does: runs the training's cell again, moves the sliders; and what they must then show.
MOVE = """
w_slider.value = 3.0
gaussians_w.value = 2.0
"""
EXPECT = """
print(model.draw._cache_size())
for w in (3.0, 0.0):
  display(Image(explore.picture([explore.render(w, 0, model)])))
"""


def test_outputs_are_stripped():
  assert len(CELLS) > 10
  for cell in CELLS:
    assert not cell.get('outputs') and cell.get('execution_count') is None
    assert set(cell['metadata']) <= {'tags'}
  assert 'widgets' not in json.loads(PATH.read_text())['metadata']


def test_the_pinned_versions_are_in_our_ranges():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  lines = setup['options']['install_requires'].strip().splitlines()
  ranges = {r.name: r.specifier for r in map(Requirement, lines)}
  pinned = re.findall(r'([\w-]+)==([\d.]+)', SOURCE)
  assert {'jax', 'flax', 'numpy'} <= {name for name, _ in pinned}
  for name, version in pinned:
    assert version in ranges[name], f'{name}=={version} is not {ranges[name]}'


def test_badge_and_install_cell_name_one_repository():
  [badge] = re.findall(r'colab-badge.svg\)\]\((\S+)\)', SOURCE)
  [repository] = re.findall(r"^REPOSITORY, COMMIT = '([^']+)'", SOURCE, re.M)
  path = PATH.relative_to(ROOT)
  assert badge == f'https://colab.research.google.com/github/{repository}/blob/main/{path}'


async def execute(client):
  """client.execute(), which sleeps over a reply that arrives while it answers a widget.

  nbclient's issue 312: its answer takes the socket's wake-up, and the cell then lasts as long as
  its timeout. Asking the socket for its events wakes whoever waits for them.
  """
  import zmq

  running = asyncio.ensure_future(client.async_execute())
  while not (await asyncio.wait([running], timeout=1))[0]:
    if client.kc is not None:
      client.kc.shell_channel.socket.get(zmq.EVENTS)
  await running


@pytest.mark.slow
def test_it_runs_from_top_to_bottom_and_its_sliders_move_the_pictures(tmp_path):
  """Needs `pip install -e '.[notebook]'`, and fails without: CI must not pass it by."""
  import nbclient
  import nbformat

  notebook = nbformat.read(PATH, as_version=4)
  nbformat.validate(notebook)
  [parameters] = [cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', ())]
  parameters.source += QUICKER.format(workdir=str(tmp_path / 'run'), data_dir=str(tmp_path))
  [again] = [cell.source for cell in notebook.cells if 'train(config' in cell.source]
  notebook.cells += [nbformat.v4.new_code_cell(source) for source in (again, MOVE, EXPECT)]
  resources = {'metadata': {'path': str(PATH.parent)}}
  asyncio.run(execute(nbclient.NotebookClient(notebook, timeout=300, resources=resources)))

  programs, at_3, at_0 = notebook.cells[-1].outputs
  assert programs.text == '1\n'  # however the slider moved
  [state] = notebook.metadata.widgets.values()
  shown = [
    model['state']['outputs']
    for model in state['state'].values()
    if model['model_name'] == 'OutputModel'
  ]
  # An error in what a slider calls is shown in its place, and raises nothing.
  assert [[output['output_type'] for output in outputs] for outputs in shown] == [
    ['display_data'],
    ['display_data'],
  ]
  moved = shown[0][0]['data']['image/png']
  assert moved == at_3.data['image/png'] != at_0.data['image/png']
  lines = [json.loads(s) for s in (tmp_path / 'run' / 'evals.jsonl').read_text().splitlines()]
  strengths = [line['settings']['sample']['guidance']['w'] for line in lines]
  assert strengths == [0, 0.1, 0.3, 0.5, 1, 2, 4]
