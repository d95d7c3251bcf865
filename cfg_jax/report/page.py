"""Cells → report.html and report.csv: findings, curves beside the paper's, samples, all numbers.

Reads files only and takes a second or two; equal inputs give equal bytes.
"""

import base64
import csv
import hashlib
import io
import json
import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from cfg_jax.core.files import write_text
from cfg_jax.evaluate import real
from cfg_jax.report import cells as cells_lib
from cfg_jax.report import charts, pictures, runs, scores
from cfg_jax.report import panels as panels_lib
from cfg_jax.report.cells import Results, format_value
from cfg_jax.report.panels import dataset_of as _dataset
from cfg_jax.report.study import VERDICTS, Study

MAX_PIXEL_BYTES = 6 * 2**20  # of pictures in the page, before PNG compression


def write_report(workdir: Path, study: Study) -> None:
  """Writes `<workdir>/report.csv` and `<workdir>/report.html` from what is on disk.

  Without metrics it shows samples, curves of training, and what to do next. Raises UserError where
  there is nothing of a run; nothing is written then.
  """
  workdir = Path(workdir)
  results = cells_lib.read(workdir, study.axis)
  table, page = to_csv(results), to_html(results, study)
  write_text(workdir / 'report.csv', table)
  write_text(workdir / 'report.html', page)


def to_csv(results: Results) -> str:
  """One row for each cell: run, the axis, settings, provenance, metrics, their standard errors."""
  out = io.StringIO()
  rows = csv.writer(out, lineterminator='\n')
  errors = [k for k in results.metrics if any(k in c['errors'] for c in results.cells)]
  heads = [*results.fields.values(), *results.metrics, *(f'{k} error' for k in errors)]
  rows.writerow(map(_csv_cell, heads))
  for c in results.cells:
    values = [c.get(k) for k in results.fields] + [c['metrics'].get(k) for k in results.metrics]
    values += [c['errors'].get(k) for k in errors]
    rows.writerow(map(_csv_cell, values))
  return out.getvalue()


def _csv_cell(value: object) -> object:
  """A value as a cell: text that a spreadsheet would compute has an apostrophe before it."""
  if isinstance(value, dict | list | bool):
    value = json.dumps(value)
  risky = isinstance(value, str) and value.lstrip(' ').startswith(
    ('=', '+', '-', '@', '\t', '\r', '\n')
  )
  return f"'{value}" if risky else value


def to_html(results: Results, study: Study) -> str:
  """The self-contained page. Everything that comes from paths and files is escaped."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('cfg_jax.report', '.'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['keep'] = lambda text: text.replace(' = ', '\u00a0=\u00a0')  # on one line
  axis = results.fields[study.axis]
  found = [real.read(folder) for folder in results.runs.values()]
  floors = _floors([told for part, _ in found for told in part])
  sets, choices, picture_notes = _explorer(results, study.axis)
  logged = [runs.training(folder) for folder in results.runs.values()]
  panels, count = panels_lib.of_results(results, study, floors)
  draws = any(map(runs.draws, results.runs.values()))
  training, _ = panels_lib.of_training([t for t, _ in logged if t], count, by_quarter=not draws)
  table = _table(results, study.axis)
  sheets = [*sets, *(floor['sheet'] for floor in floors)]
  css, js = _css(sheets), '\n' + _own('page.js')
  data = {
    'rows': [row['details'] for row in table['rows']],
    'same': table['same'],
    'sets': [{k: v for k, v in s.items() if k != 'sheets'} for s in sets],
    'axis': axis,
  }
  cells = [*results.cells, *results.unevaluated]
  notes = [*results.notes, *(n for _, part in (*found, *logged) for n in part)]
  for note in (*notes, *picture_notes):
    logging.getLogger('cfg_jax').warning(note)
  return environment.get_template('page.html.j2').render(
    css=Markup(css),
    js=Markup(js),
    policy=f"default-src 'none'; img-src data:; style-src {_hash(css)}; script-src {_hash(js)}",
    study=study,
    title=(
      study.title(sorted({_dataset(c) for c in cells}) or ['no data yet'])
      if draws
      else _title(results)
    ),
    draws=draws,
    axis=axis,
    num_cells=len(results.cells),
    num_runs=len(results.runs),
    panels=panels,
    training=training,
    scores=scores.table(results.runs),
    verdicts=VERDICTS,
    table=table,
    data=data,
    configs=_configs(results),
    notes=notes,
    picture_notes=picture_notes,
    sets=sets,
    floors=floors,
    choices=choices,
    todo=runs.next_steps(results.workdir, _lacking(results)),
  )


def _hash(text: str) -> str:
  """What a content security policy calls a script or a style."""
  digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
  return f"'sha256-{digest}'"


def _css(sheets: Sequence[dict]) -> str:
  """The page's style: colours in both modes, page.css, and the sizes of sheets' labels."""
  light, dark = (
    ' '.join(f'--{name}: {both[i]};' for name, both in charts.PALETTE.items()) for i in (0, 1)
  )
  css = f':root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n'
  css += _own('page.css')
  for j, sheet in enumerate(sheets):
    width, height = (side * sheet['scale'] for side in sheet['pitch'])
    css += f'.sheet-{j} .top span {{ width: {width:g}px; }}\n'
    css += f'.sheet-{j} .side span {{ height: {height:g}px; }}\n'
  return css


def _floors(found: Sequence[dict]) -> list[dict]:
  """What real images score, each drawing of them once, with a sheet of some."""
  once = {
    json.dumps({k: v for k, v in f.items() if k in _DRAWING}, sort_keys=True): f for f in found
  }
  return [
    told | {'sheet': pictures.of_real(told, told.get('classes', ()))} for told in once.values()
  ]


_DRAWING = ('dataset', 'n', 'of', 'seed', 'extractor_sha256', 'reference_sha256', 'metric_settings')


def _title(results: Results) -> str:
  """Of a page on runs that draw no samples: their methods and data."""
  configs = [runs.config_of(folder) for folder in results.runs.values()]
  methods, data = (
    ', '.join(sorted({format_value(config.get(field)) for config in configs}))
    for field in ('method.name', 'data.name')
  )
  return f'{methods} on {data}'


def _lacking(results: Results) -> list[Path]:
  """The runs that nothing is known of in numbers."""
  evaluated = {c['run'] for c in results.cells}
  evaluated |= {run for run, folder in results.runs.items() if (folder / scores.FILE).exists()}
  return [folder for run, folder in results.runs.items() if run not in evaluated]


def _own(file: str) -> str:
  """A file of this package, to be written into the page as it is."""
  return resources.files(__package__).joinpath(file).read_text(encoding='utf-8')


def _explorer(results: Results, axis: str) -> tuple[list[dict], list[tuple], list[str]]:
  """Sheets of pictures with their metrics, (setting, its values) to choose by, and notes."""
  shown, notes = pictures.choose(results, axis, MAX_PIXEL_BYTES)
  sets = []
  for p in shown:
    every = (*results.unevaluated, *results.cells)
    cells = {c[axis]: c for c in every if pictures.settings_of(c, axis) == p.settings}
    metrics = [
      [(k, results.text(c, k)) for k in results.told if k in c['metrics']]
      for c in (cells[x] for x in p.x)
    ]
    names = runs.classes(results.runs[p.settings['run']])
    sets.append(pictures.embed(p, results.fields, names) | {'metrics': metrics})
  settings = [s['settings'] for s in sets]
  varying = cells_lib.telling(settings, [k for k in results.fields.values() if k != 'run'])
  if len({tuple(s.get(k) for k in varying) for s in settings}) < len(settings):
    varying.insert(0, 'run')
  values = [list(dict.fromkeys(s.get(k, '') for s in settings)) for k in varying]
  return sets, list(zip(varying, values)), notes


def _table(results: Results, axis: str) -> dict:
  """The page's table: what varies as columns; provenance by row, and once where all rows agree."""
  fields, cells = results.fields, results.cells
  shown = [k for k in fields if k not in (axis, 'samples') and not k.endswith('sha256')]
  shown = cells_lib.telling(cells, shown)
  trained = [k for k in shown if k.startswith('method.') or k == 'seed']
  if trained and _tell_runs_apart(cells, trained):
    shown.remove('run')
  metrics = results.told
  columns = [(fields[k], '') for k in (*shown, axis)]
  columns += [(k, f'{m.better} is better' if (m := results.metrics[k]) else '') for k in metrics]
  apart = cells_lib.varying(cells, fields)
  rows = []
  for c in cells:
    values = [c.get(k) for k in (*shown, axis)] + [c['metrics'].get(k) for k in metrics]
    texts = [format_value(c.get(k)) for k in (*shown, axis)]
    texts += [results.text(c, k) for k in metrics]
    sort = [v if cells_lib.is_number(v) else None for v in values]
    details = [(fields[k], format_value(c.get(k))) for k in apart]
    details += [(k, repr(v)) for k, v in c['metrics'].items()]
    rows.append({'cells': list(zip(texts, sort)), 'details': details})
  same = [(fields[k], format_value(cells[0].get(k))) for k in fields if cells and k not in apart]
  return {'columns': columns, 'rows': rows, 'same': [(k, v) for k, v in same if v]}


def _tell_runs_apart(cells: Sequence[dict], fields: Sequence[str]) -> bool:
  """True if no two runs have the same values of these fields."""
  values = {(c['run'], *(format_value(c.get(k)) for k in fields)) for c in cells}
  return len(values) == len({v[1:] for v in values})


def _configs(results: Results) -> list[dict]:
  """Every setting of every run that has a config."""
  out = []
  for run, folder in results.runs.items():
    if config := runs.config_of(folder):  # a run evaluated elsewhere has none
      out.append({'run': run, 'values': [(k, format_value(v)) for k, v in config.items()]})
  return out
