"""The notebook is committed without outputs, pins no package, and runs from top to bottom."""

import asyncio
import json
import re
import sys
import types

import pytest

from tests.conftest import ROOT

PATH = ROOT / 'experiments' / 'guidance_explorer.ipynb'
CELLS = json.loads(PATH.read_text())['cells']
SOURCE = '\n'.join(''.join(cell['source']) for cell in CELLS)

# At a size that CI can wait for; else the very cells that a user runs. A network starts deaf to the
# class: w does nothing until it has learned a little.
QUICKER = """
WORKDIR, TRAIN = Path({workdir!r}), {train}
TRAINING |= {{'train.num_steps': 30, 'train.warmup_steps': 1, 'train.ema_decay': 0.5}}
SETTINGS |= {{'sample.num_samples': 40, 'data.dir': {data_dir!r}}}
"""
# What a user does: moves the sliders, chooses a sampler and a rule; and what they must then show.
MOVE = """
w_slider.value = 3.0
grid_choice.value = 'paper'
rule_choice.value = 'rescale'
gaussians_w.value = 2.0
"""
EXPECT = """
print(model.draw._cache_size())
for w in (3.0, 0.0):
  display(shown({f'w = {w:g}': explore.render(w, 0, model)}))
paper = load('sample.sampler.name=dpmpp', 'sample.sampler.grid=paper', 'sample.sampler.num_steps=8')
display(shown({f'w = {w:g}': explore.render(w, 0, paper) for w in (0, 1, 4)}, pixels=40))
for rule in ('rescale', 'classifier_free'):
  display(shown({'w = 1': explore.render(1, 0, with_sampler('dpmpp', 'paper', 8, rule))}))
"""


def test_outputs_are_stripped():
  assert len(CELLS) > 10
  for cell in CELLS:
    assert not cell.get('outputs') and cell.get('execution_count') is None
    assert set(cell['metadata']) <= {'tags'}
  assert 'widgets' not in json.loads(PATH.read_text())['metadata']


def test_the_install_cell_pins_nothing():
  """Colab has packages of its own: the ranges of setup.cfg are wide, and pip takes what fits."""
  [install] = re.findall(r'%pip install .*', SOURCE)
  assert '==' not in install and '-e {CLONE}' in install


def test_one_variable_names_the_repository(monkeypatch):
  """The badge that the first cell then shows opens this notebook there."""
  [cell] = [''.join(c['source']) for c in CELLS if 'REPOSITORY =' in ''.join(c['source'])]
  assert SOURCE.count("REPOSITORY = 'OWNER/REPO'") == 1 and 'colab-badge' not in SOURCE.replace(
    cell, ''
  )
  plain = re.sub(r'^ *[%!].*$', '    pass', cell, flags=re.M)  # what IPython alone reads
  monkeypatch.chdir(PATH.parent)
  monkeypatch.setattr('sys.path', list(sys.path))
  for repository, badges in (('OWNER/REPO', 0), ('you/yours', 1)):
    found = []
    shown = types.SimpleNamespace(Markdown=str, display=found.append)
    monkeypatch.setitem(sys.modules, 'IPython.display', shown)
    monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(display=shown))
    exec(plain.replace("= 'OWNER/REPO'", f"= '{repository}'", 1), {})
    assert len(found) == badges
  path = PATH.relative_to(ROOT)
  assert found[0].endswith(
    f'](https://colab.research.google.com/github/you/yours/blob/main/{path})'
  )


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
@pytest.mark.parametrize('train', [False, True])
def test_it_runs_from_top_to_bottom_and_its_sliders_move_the_pictures(train, tmp_path):
  """Needs `pip install -e '.[notebook]'`, and fails without: CI must not pass it by."""
  import nbclient
  import nbformat

  notebook = nbformat.read(PATH, as_version=4)
  nbformat.validate(notebook)
  [parameters] = [cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', ())]
  parameters.source += QUICKER.format(
    workdir=str(tmp_path / 'run'), data_dir=str(tmp_path), train=train
  )
  [again] = [cell.source for cell in notebook.cells if 'train(config' in cell.source]
  notebook.cells += [nbformat.v4.new_code_cell(source) for source in (again, MOVE, EXPECT)]
  resources = {'metadata': {'path': str(PATH.parent)}}
  asyncio.run(execute(nbclient.NotebookClient(notebook, timeout=300, resources=resources)))

  programs, at_3, at_0, on_paper, rescaled, plain = notebook.cells[-1].outputs
  assert programs.text == '1\n'  # however the slider moved
  [state] = notebook.metadata.widgets.values()
  outputs = [
    model['state']['outputs']
    for model in state['state'].values()
    if model['model_name'] == 'OutputModel'
  ]
  # An error in what a slider calls is shown in its place, and raises nothing.
  kinds = [[output['output_type'] for output in shown] for shown in outputs]
  assert [shown for shown in kinds if shown != ['display_data']] == [['stream', 'display_data']]
  moved, chosen, ruled = (outputs[i][-1]['data'].get('image/png') for i in (0, 1, -1))
  assert ruled == rescaled.data['image/png'] != plain.data['image/png']
  assert moved == at_3.data['image/png'] != at_0.data['image/png']
  assert chosen == on_paper.data['image/png']
  assert outputs[1][0]['text'].startswith('8 calls of the network')
  [run] = [path for path in tmp_path.iterdir() if (path / 'evals.jsonl').exists()]
  assert run.name == ('run' if train else 'explorer_pretrained')
  lines = [json.loads(s) for s in (run / 'evals.jsonl').read_text().splitlines()]
  strengths = [line['settings']['sample']['guidance']['w'] for line in lines]
  assert strengths == [0, 0.1, 0.3, 0.5, 1, 2, 4]
