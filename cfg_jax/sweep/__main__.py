"""A sweep: models for a grid of configs, samples for each w, evaluated and drawn.

  python -m cfg_jax.sweep --config configs/digits.py --workdir runs/digits
    [--grid method.p_uncond=0.1,0.2 --grid train.learning_rate=1e-3,3e-4
     --grid sample.guidance.w=0,0.5,1] [--set train.num_steps=1000]
    [--also "method.p_uncond=0.1 sample.sampler.name=ddim sample.sampler.num_steps=8,16"]
    [--cluster slurm --slurm.partition=gpu --slurm.gpus_per_node=8 --slurm.nodes=4]
  python -m cfg_jax.sweep --workdir runs/digits --status

Each model is a folder of the work directory. What is on disk is not done again, so a sweep that was
stopped, or killed, goes on where it was. At the end: report.html and report.csv. Logs are in jobs/.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags

from cfg_jax import papers
from cfg_jax.core import command, config_file, fields, locks
from cfg_jax.core import config as config_lib
from cfg_jax.core.checkpoint import check_path
from cfg_jax.core.errors import UserError
from cfg_jax.core.fields import Field
from cfg_jax.data import registry
from cfg_jax.generate.upgrade import upgrade
from cfg_jax.plan import cost, devices
from cfg_jax.plan import show as plan
from cfg_jax.report import figures
from cfg_jax.sweep import grid, jobs, queue, records, status
from cfg_jax.sweep.local import Local
from cfg_jax.sweep.slurm import Slurm

# Of sbatch, by submitit's names. A job whose time is up goes on in another.
SLURM = {'nodes': 1, 'tasks_per_node': 1, 'timeout_min': 24 * 60}
SLURM |= dict.fromkeys(('partition', 'account', 'qos', 'constraint', 'gpus_per_node'))
SLURM |= dict.fromkeys(('cpus_per_task', 'mem_gb', 'array_parallelism'))
NUMBERS = dict.fromkeys(('nodes', 'tasks_per_node', 'timeout_min'), Field(int, 1, 10**6))
NUMBERS |= {'cpus_per_task': Field(int, 1, 10**6, optional=True)}
NUMBERS |= {'mem_gb': Field(float, 0, 10**6, optional=True)}
NUMBERS |= {'array_parallelism': Field(int, 1, 10**6, optional=True)}


def define_flags(config: str | None = None, grids: Sequence[Sequence[str]] = ()) -> None:
  """Every flag; config, of configs/, and grids are what --config, --grid, --also are by default."""
  first, *others = grids or [()]
  command.define_config_flags(f'configs/{config}.py' if config else None, required=False)
  flags.DEFINE_string('workdir', None, 'Folder that holds all of the work.', required=True)
  flags.DEFINE_multi_string(
    'grid', first, "An axis, FIELD=VALUE,VALUE,…; repeat it for others. By default the config's."
  )
  flags.DEFINE_multi_string(
    'also', [' '.join(axes) for axes in others], 'One more grid, its axes in one text: "A=1,2 B=3".'
  )
  flags.DEFINE_enum('cluster', 'local', ['local', 'slurm'], 'Where jobs run.')
  flags.DEFINE_integer('jobs', 1, 'Models at once, here. One uses all cores and devices.', 1)
  flags.DEFINE_integer('parts', None, 'Slurm jobs for a sampling; as many as nodes by default.', 1)
  flags.DEFINE_multi_string('slurm', [], f'--slurm.OPTION=VALUE, of sbatch: {", ".join(SLURM)}.')
  flags.DEFINE_boolean('status', False, 'Shows how far the sweep is, and does nothing.')
  flags.DEFINE_boolean('dry_run', False, 'Shows what would run and its cost, and does nothing.')
  flags.DEFINE_boolean('retry', False, 'Tries again what failed.')
  plan.define_flags()


def of_flags(
  default: Sequence[Sequence[str]] = (),
) -> tuple[ml_collections.ConfigDict, list[grid.Axes]]:
  """The sweep that the flags describe, or, without --config, the one that is in --workdir.

  Its grids are --grid, or else `default`, or else what a config file says in GRIDS, or else the
  paper's; and --also.
  """
  given, texts = flags.FLAGS, []
  if given.config:
    config, grids = command.config_of_file(), []
    if not given.grid:
      texts = default or getattr(config_file.module(given.config), 'GRIDS', (papers.DEFAULT.grid,))
  else:
    config, grids = grid.read(Path(given.workdir))
    config = config_lib.change(config, given.set)
  if given.grid:
    grids, texts = [], [given.grid]
  texts = [*texts, *(also.split() for also in given.also)]
  return config, grids + [grid.parse(axes, config) for axes in texts]


def show_status(workdir: Path, runs: list[grid.Run]) -> None:
  """Prints a line for each model, and the last lines of the log of each that failed."""
  rows, words = [], []
  for run in runs:
    found, failures = status.read(workdir, run), records.failures(workdir, run)
    at_work = locks.held(jobs.Job(workdir, run).lock)
    state = 'done' if found.done else 'running' if at_work else 'failed' if failures else 'waiting'
    rows.append((run.name, found, state))
    words += [records.last_words(workdir, f'{run.name}/{path.stem}') for path in failures]
  status.Board().show(rows)
  for text in words:
    print(text)


def show_cost(
  workdir: Path, runs: list[grid.Run], kind: devices.Device, count: int, mfu: float
) -> None:
  """Prints what is still to do for each model, and what it costs by `cfg_jax.plan`.

  kind, count, mfu: the devices that hours are of, and the share of their peak.
  """
  rows, hours = [('model', 'steps', 'images', 'cells', 'PFLOP', 'hours')], 0.0
  counted = {}  # seconds for a large network
  for run in runs:
    key = run.config.model.to_json(), run.config.data.name
    if key not in counted:
      training = cost.train_flops(run.config, remat=False)  # what remat repeats is not counted
      counted[key] = training.compiler, cost.forward_flops(run.config).compiler
    found, (training, forward) = status.read(workdir, run), counted[key]
    steps = 0 if found.trained else found.num_steps - found.step
    work = steps * run.config.train.batch_size * training
    work += found.calls * forward
    rate = count * kind.peak_flops(run.config.model.dtype) * mfu * 3600
    hours += work / rate
    left = steps, found.num_images - found.images, found.num_cells - found.cells
    rows.append((run.name, *(f'{n:,}' for n in left), f'{work / 1e15:.3g}', f'{work / rate:.3g}'))
  print('Still to do')
  print('\n'.join(status.table(rows)))
  print(f'{hours:.3g} hours in all on {count} × {kind.name} at {mfu:.0%} of the peak, unevaluated.')


def sweep(shows_cost: bool = False, grids: Sequence[Sequence[str]] = ()) -> Path:
  """What the flags ask for, by default of these grids; returns the work directory.

  Raises UserError, before anything is started or written, where flags, configs or the work
  directory are wrong, and SystemExit with 1 where a job did not come to its end.
  """
  given, workdir = flags.FLAGS, Path(flags.FLAGS.workdir).absolute()
  check_path(workdir)
  config, grids = of_flags(grids)
  runs = grid.runs_of(config, *grids)
  for run in runs:
    upgrade(workdir / run.name)
  if given.status:
    show_status(workdir, runs)
    raise SystemExit
  grid.check_workdir(workdir, config, grids, runs)
  if given.cluster == 'slurm':
    options = config_lib.change(ml_collections.ConfigDict(SLURM), given.slurm)
    for name, remedy in fields.problems({k: options[k] for k in NUMBERS}, NUMBERS):
      raise UserError(f'--slurm.{name}={options[name]} {remedy}.')
    parts = given.parts or options.nodes
    cluster = Slurm(workdir, options.to_dict(), parts)
  else:
    cluster = Local(workdir, given.jobs)
  if shows_cost or given.dry_run:
    show_cost(workdir, runs, *plan.device_of_flags())
  if given.dry_run:
    raise SystemExit
  with locks.claim(workdir / 'jobs' / 'launcher.lock', seconds=0) as alone:
    if not alone:
      raise UserError(f'--workdir={workdir}: another launcher is at work there; see --status.')
    # Here and once: data that is missing is told, and data made on first use is made by one alone.
    registry.open_source(config.data)
    grid.write(workdir, config, grids)
    if given.retry:
      for run in runs:
        for failure in records.failures(workdir, run):
          failure.unlink()
    left = queue.launch(workdir, runs, cluster)
  for name in left:
    print(f'{name} did not come to its end:\n{records.last_words(workdir, name)}', file=sys.stderr)
  if left:
    print('Started again, a sweep goes on; with --retry also with what failed.', file=sys.stderr)
    raise SystemExit(1)
  print(f'{workdir / "report.html"}\n{workdir / "report.csv"}')
  return workdir


def run_paper(paper: papers.Paper, name: str) -> None:
  """The command of a table or figure of a paper: its sweep, which says its cost first."""
  asked = paper.sweeps[name]

  def main(argv: list[str]) -> None:
    del argv
    workdir = sweep(shows_cost=True)
    if asked.figure:
      figures.write_frontier(workdir, workdir / asked.figure, paper.study)

  define_flags(asked.config, [asked.grid])
  command.run(main)


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  sweep()


if __name__ == '__main__':
  define_flags()
  command.run(main)
