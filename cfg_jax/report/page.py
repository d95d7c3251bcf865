"""Cells → report.html and report.csv: findings, curves beside the paper's, samples, all numbers.

Reads files only and takes a second or two; equal inputs give equal bytes.
"""

import csv
import io
import json
import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from cfg_jax.core import files
from cfg_jax.core.config import flat
from cfg_jax.core.files import write_text
from cfg_jax.report import cells as cells_lib
from cfg_jax.report import charts, pictures
from cfg_jax.report.cells import Results, format_value
from cfg_jax.report.curves import Curve, curves
from cfg_jax.report.study import VERDICTS, Published, Study

MAX_PIXEL_BYTES = 6 * 2**20  # of pictures in the page, before PNG compression


def write_report(workdir: Path, study: Study) -> None:
  """Writes `<workdir>/report.csv` and `<workdir>/report.html` from what is on disk.

  Raises UserError where there is no evaluated cell; nothing is written then.
  """
  workdir = Path(workdir)
  results = cells_lib.read(workdir, study.axis)
  table, page = to_csv(results), to_html(results, study)
  write_text(workdir / 'report.csv', table)
  write_text(workdir / 'report.html', page)
  for note in results.notes:
    logging.getLogger('cfg_jax').warning(note)


def to_csv(results: Results) -> str:
  """One row for each cell: run, the axis, other settings, provenance, then the metrics."""
  out = io.StringIO()
  rows = csv.writer(out, lineterminator='\n')
  rows.writerow([*results.fields.values(), *results.metrics])
  for c in results.cells:
    values = [c.get(k) for k in results.fields] + [c['metrics'].get(k) for k in results.metrics]
    rows.writerow(json.dumps(v) if isinstance(v, dict | list | bool) else v for v in values)
  return out.getvalue()


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
  sets, choices, notes = _explorer(results, study.axis)
  table = _table(results, study.axis)
  data = {
    'rows': [row['details'] for row in table['rows']],
    'same': table['same'],
    'sets': [{k: v for k, v in s.items() if k != 'sheets'} for s in sets],
    'axis': axis,
  }
  return environment.get_template('page.html.j2').render(
    css=_own('page.css'),
    js=_own('page.js'),
    palette=charts.PALETTE,
    study=study,
    title=study.title(sorted({_dataset(c) for c in results.cells})),
    axis=axis,
    num_cells=len(results.cells),
    num_runs=len(results.runs),
    panels=_panels(results, study),
    verdicts=VERDICTS,
    table=table,
    data=data,
    configs=_configs(results),
    notes=results.notes,
    picture_notes=notes,
    sets=sets,
    choices=choices,
  )


def _own(file: str) -> Markup:
  """A file of this package, to be written into the page as it is."""
  return Markup(resources.files(__package__).joinpath(file).read_text(encoding='utf-8'))


def _dataset(settings: dict) -> str:
  return format_value(settings.get('dataset')) or 'unnamed data'


def _panels(results: Results, study: Study) -> list[dict]:
  """Curves of one data set and one distance share axes, findings and what the paper prints."""
  groups: dict[tuple, list[Curve]] = {}
  for c in curves(results, study.axis):
    groups.setdefault((_dataset(c.settings), c.distance), []).append(c)
  panels, first, axis = [], 0, results.fields[study.axis]
  for (dataset, distance), ours in groups.items():
    published = study.beside(dataset, distance)
    lines = charts.lines_of(ours, published, axis)
    frames = charts.frames(distance, axis, study.scale)
    drawn = [(frame.title, charts.svg(lines, frame, first)) for frame in frames]
    panels.append(
      {
        'dataset': dataset,
        'distance': distance,
        'findings': study.findings(ours),
        'charts': [(title, Markup(svg)) for title, svg in drawn if svg],
        'legend': [(first + j, Markup(charts.key(x)), x.name) for j, x in enumerate(lines)],
        'beside': beside(ours, published, results.fields),
      }
    )
    first += len(lines)
  return panels


def beside(ours: Sequence[Curve], published: Sequence[Published], fields: dict) -> list[dict]:
  """A table for each of our curves that has the settings of a column of the paper's, at equal x."""
  tables = []
  for c in ours:
    for p in published:
      if not p.settings or not p.settings.items() <= c.settings.items():
        continue
      names = [k for k in p.metrics if k in c.metrics]
      rows = []
      for i, x in enumerate(c.x):
        if (x := round(x, 6)) in p.x:
          pairs = [(c.metrics[k][i], p.metrics[k][p.x.index(x)]) for k in names]
          rows.append((x, [v for mine, theirs in pairs for v in (mine, theirs, mine - theirs)]))
      if rows:
        column = ' and '.join(fields[k] for k in p.column)
        tables.append(
          {'table': p.table, 'column': column, 'name': c.name, 'metrics': names, 'rows': rows}
        )
  return tables


def _explorer(results: Results, axis: str) -> tuple[list[dict], list[str], list[str]]:
  """Sheets of pictures with their metrics, the settings to choose among them by, and notes."""
  shown, notes = pictures.choose(results, axis, MAX_PIXEL_BYTES)
  sets = []
  for p in shown:
    cells = {c[axis]: c for c in results.cells if pictures.settings_of(c, axis) == p.settings}
    metrics = [
      [(k, results.text(c, k)) for k in results.told if k in c['metrics']]
      for c in (cells[x] for x in p.x)
    ]
    sets.append(pictures.embed(p, results.fields) | {'metrics': metrics})
  settings = [s['settings'] for s in sets]
  varying = cells_lib.varying(settings, [k for k in results.fields.values() if k != 'run'])
  if len({tuple(s.get(k) for k in varying) for s in settings}) < len(settings):
    varying.insert(0, 'run')
  return sets, varying, notes


def _table(results: Results, axis: str) -> dict:
  """The page's table: what varies as columns; provenance by row, and once where all rows agree."""
  fields, cells = results.fields, results.cells
  shown = [k for k in fields if k not in (axis, 'samples') and not k.endswith('sha256')]
  shown = cells_lib.varying(cells, shown)
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
  same = [(fields[k], format_value(cells[0].get(k))) for k in fields if k not in apart]
  return {'columns': columns, 'rows': rows, 'same': [(k, v) for k, v in same if v]}


def _tell_runs_apart(cells: Sequence[dict], fields: Sequence[str]) -> bool:
  """True if no two runs have the same values of these fields."""
  values = {(c['run'], *(format_value(c.get(k)) for k in fields)) for c in cells}
  return len(values) == len({v[1:] for v in values})


def _configs(results: Results) -> list[dict]:
  """Every setting of every run that has a config."""
  out = []
  for run, folder in results.runs.items():
    if not (folder / 'config.json').exists():
      continue  # a run evaluated elsewhere has none
    config = files.read_sealed(folder / 'config.json')
    values = [(k, format_value(v)) for k, v in flat(config).items()]
    out.append({'run': run, 'values': values})
  return out
