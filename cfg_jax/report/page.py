"""evals.jsonl → report.html and report.csv: tables and curves beside the paper's.

Reads files only (no JAX) and takes a second or two; equal inputs give equal bytes.
"""

import csv
import io
import json
import logging
import os
from pathlib import Path

import jinja2

from cfg_jax.papers import tables as paper
from cfg_jax.papers.findings import VERDICTS, beside_paper, findings
from cfg_jax.report import cells as results
from cfg_jax.report import figures
from cfg_jax.report.cells import MEASURE, SAMPLER, Curve, Results, format_value

MAX_PIXEL_BYTES = 6 * 2**20  # of pictures in the page, before PNG compression
COLUMNS = ('run', 'w', *(k for k in SAMPLER if k != 'run'), *MEASURE, 'samples')


def _columns(cells: tuple[dict, ...]) -> tuple[list[str], list[str]]:
  """Fields (known ones first, then other provenance) and metrics (distances, IS, then others)."""
  extra = sorted({k for c in cells for k in c} - {*COLUMNS, 'metrics'})
  known = {k for c in cells for k in c['metrics']}
  metrics = sorted(known, key=lambda k: (not k.startswith(('FID', 'FD')), k[:2] != 'IS', k))
  return [*COLUMNS, *extra], metrics


def to_csv(cells: tuple[dict, ...]) -> str:
  """One row for each cell: run, w, the other settings, provenance, then the metrics."""
  fields, metrics = _columns(cells)
  out = io.StringIO()
  rows = csv.writer(out, lineterminator='\n')
  rows.writerow([*fields, *metrics])
  for c in cells:
    values = [c.get(k) for k in fields] + [c['metrics'].get(k) for k in metrics]
    rows.writerow(json.dumps(v) if isinstance(v, dict | list | bool) else v for v in values)
  return out.getvalue()


def _with_spread(values: dict, key: str) -> str:
  spread = format_value(values.get(f'{key}_std'))
  return format_value(values.get(key)) + (f' ± {spread}' if spread else '')


def _table(cells: tuple[dict, ...]) -> dict:
  """The page's table: what varies as columns; provenance by row, and once where all rows agree."""
  fields, metrics = _columns(cells)
  shown = results.varying(cells, [k for k in SAMPLER + MEASURE if not k.endswith('sha256')])
  runs = {(c['run'], format_value(c.get('p_uncond'))) for c in cells}
  if 'p_uncond' in shown and len(runs) == len({p for _, p in runs}):
    shown.remove('run')  # p_uncond says it
  columns = [*shown, 'w', *(k for k in metrics if not k.endswith('_std'))]
  apart = results.varying(cells, fields)
  rows = []
  for c in cells:
    values = c | c['metrics']
    texts = [_with_spread(values, k) for k in columns]
    sort = [v if results.is_number(v := values.get(k)) else None for k in columns]
    details = [(k, format_value(c.get(k))) for k in apart]
    details += [(k, repr(v)) for k, v in c['metrics'].items()]
    rows.append({'cells': list(zip(texts, sort)), 'details': details})
  same = [(k, format_value(cells[0].get(k))) for k in fields if k not in apart]
  return {'columns': columns, 'rows': rows, 'same': [(k, v) for k, v in same if v]}


def _flat(config: object, prefix: str = '') -> list[tuple[str, str]]:
  if not isinstance(config, dict):
    return [(prefix, format_value(config))]
  return [p for k, v in config.items() for p in _flat(v, f'{prefix}.{k}' if prefix else str(k))]


def _configs(found: Results) -> list[dict]:
  out = []
  for run, folder in found.runs.items():
    try:
      text = (folder / 'config.json').read_text(encoding='utf-8')
      out.append({'run': run, 'values': _flat(json.loads(text))})
    except (OSError, ValueError):
      continue  # a run evaluated elsewhere has none
  return out


def _dataset(settings: dict) -> str:
  return format_value(settings.get('dataset')) or 'unnamed data'


def _panels(curves: list[Curve]) -> list[dict]:
  """Curves of one data set and one distance share axes, findings and the paper's table."""
  groups: dict[tuple, list[Curve]] = {}
  for c in curves:
    groups.setdefault((_dataset(c.settings), c.distance), []).append(c)
  panels, first = [], 0
  for (dataset, distance), group in groups.items():
    theirs = paper.curves(dataset)
    charts = figures.charts(group, dataset, first)
    tables = [{'name': c.name, 'rows': beside_paper(c, theirs)} for c in group]
    panels.append(
      {
        'dataset': dataset,
        'distance': distance,
        'findings': findings(group),
        'charts': charts,
        'paper_table': theirs[0].table if theirs else None,
        'paper_field': theirs[0].field if theirs else None,
        'beside': [t for t in tables if t['rows']],
      }
    )
    first += len(charts[0]['lines']) if charts else 0
  return panels


def _explorer(found: Results) -> tuple[list[dict], list[str], list[str]]:
  """Sheets of pictures with their metrics, the settings to choose among them by, and notes."""
  pictures, notes = results.pictures(found, MAX_PIXEL_BYTES)
  sets = []
  for p in pictures:
    cells = {c['w']: c for c in found.cells if {k: c.get(k) for k in SAMPLER} == p.settings}
    metrics = [
      [(k, _with_spread(m, k)) for k in m if not k.endswith('_std')]
      for m in (cells[w]['metrics'] for w in p.w)
    ]
    sets.append(figures.embed(p) | {'metrics': metrics})
  settings = [p.settings for p in pictures]
  choices = [k for k in results.varying(settings, SAMPLER) if k != 'run']
  if len({tuple(str(s[k]) for k in choices) for s in settings}) < len(settings):
    choices.insert(0, 'run')
  return sets, choices, notes


def to_html(found: Results) -> str:
  """The self-contained page. Everything that comes from paths and files is escaped."""
  curves = results.curves(found.cells)
  sets, choices, notes = _explorer(found)
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('cfg_jax.report', '.'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['keep'] = lambda text: text.replace(' = ', '\u00a0=\u00a0')  # on one line
  table = _table(found.cells)
  data = {
    'rows': [row['details'] for row in table['rows']],
    'same': table['same'],
    'sets': [{k: v for k, v in s.items() if k != 'sheets'} for s in sets],
  }
  return environment.get_template('page.html.j2').render(
    datasets=sorted({_dataset(c) for c in found.cells}),
    num_cells=len(found.cells),
    num_runs=len(found.runs),
    panels=_panels(curves),
    verdicts=VERDICTS,
    table=table,
    data=data,
    configs=_configs(found),
    notes=found.notes,
    picture_notes=notes,
    sets=sets,
    choices=choices,
    chart_size=(figures.WIDTH, figures.HEIGHT, figures.LEFT, figures.RIGHT, figures.BOTTOM),
  )


def _write(path: Path, text: str) -> None:
  """Whole or not at all: a reader never sees half a page."""
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  partial.write_text(text, encoding='utf-8', newline='')
  partial.replace(path)


def write_report(workdir: Path) -> None:
  """Writes `<workdir>/report.csv` and `<workdir>/report.html` from what is on disk.

  Raises:
    ValueError: there is no evaluated cell; nothing is written then.
  """
  workdir = Path(workdir)
  found = results.read(workdir)
  table, page = to_csv(found.cells), to_html(found)
  _write(workdir / 'report.csv', table)
  _write(workdir / 'report.html', page)
  for note in found.notes:
    logging.getLogger('cfg_jax').warning(note)
