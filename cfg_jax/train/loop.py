"""config → checkpoints: Algorithm 1 under `jax.jit`, on one core or many hosts."""

import contextlib
import functools
import signal
from pathlib import Path

import jax
import ml_collections

from cfg_jax import methods
from cfg_jax.core import config as config_lib
from cfg_jax.core import locks, memory, processes, runtime, sharding
from cfg_jax.core import state as train_state
from cfg_jax.core.checkpoint import Checkpoints, check_path
from cfg_jax.core.errors import UserError
from cfg_jax.core.progress import Progress
from cfg_jax.data import prepared, registry
from cfg_jax.data.batches import Batches
from cfg_jax.methods import owners
from cfg_jax.train.log import Log, make_grid
from cfg_jax.train.profile import ProfileSignal


def train(
  config: ml_collections.ConfigDict, workdir: Path, peak_images_per_s: float | None = None
) -> None:
  """Trains to config.train.num_steps, going on from the newest intact checkpoint in workdir.

  SIGTERM and SIGINT save a checkpoint and raise SystemExit. Raises UserError, before anything is
  written, where the config is wrong or the work directory was made by another, and where the loss
  or the gradient is not finite: nothing is saved from then on. peak_images_per_s: the rate at which
  the devices' published peak would be reached, if known, for the log. Of several processes (see
  `processes`) each calls this; the first one logs and shows progress.
  """
  check_path(workdir)
  config_lib.check(config, owners.of(config), jax.device_count())
  mesh = sharding.data_mesh()
  method = methods.make(config, mesh)
  seed = method.settings['seed']
  abstract = jax.eval_shape(method.init, seed)
  placed = train_state.shardings(abstract, mesh, config.train.shard_optimizer)
  memory.check(
    abstract,
    config.train.batch_size // config.train.microbatches // jax.process_count(),
    registry.of(config.data).image_shape,
    config.model.channels,
    f'train.batch_size={config.train.batch_size}',
  )
  with contextlib.ExitStack() as stack:  # however this ends, saves under way reach the disk
    _work_alone(workdir, stack)
    source = processes.first_then_others(functools.partial(registry.open_source, config.data))
    config_lib.record(config, workdir)
    fingerprint = prepared.fingerprint(source)

    everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
    checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints)
    stack.callback(checkpoints.close)
    restored = checkpoints.restore(sharding.abstract(abstract, placed))
    if restored is None:
      options = runtime.options_of_what_runs_once()
      state = jax.jit(method.init, out_shardings=placed, compiler_options=options)(seed)
      position = 0
    else:
      state, extra = restored
      position = extra['position']
      if extra['fingerprint'] != fingerprint:
        raise UserError(
          f'data.name={config.data.name} has fingerprint {fingerprint}, but {workdir} was trained '
          f'on {extra["fingerprint"]}: restore that data in data.dir, or use a new --workdir.'
        )
    step = int(state.step)
    if step >= config.train.num_steps:
      return
    checkpoints.set_aside_after(step)

    batches = Batches(
      source,
      batch_size=config.train.batch_size,
      seed=config.seed,
      flip=config.data.flip,
      crop=config.data.get('crop', False),
      position=position,
      rows=sharding.rows(split, config.train.batch_size),
    )
    stack.callback(batches.close)
    train_step = jax.jit(
      method.step,
      in_shardings=(placed, split, everywhere),
      out_shardings=(placed, everywhere),
      donate_argnums=0,
    )
    settings = jax.device_put(method.settings, everywhere)
    grid = make_grid(config, mesh) if config.train.sample_every else None
    log = Log(workdir, step, config.train.batch_size, peak_images_per_s)
    stack.callback(log.close)
    progress = Progress(
      f'train {Path(workdir).name}',
      config.train.num_steps,
      step,
      unit='steps',
      silent=not processes.is_first(),
      compiles=True,
    )
    stop = stack.enter_context(processes.StopSignal())
    profile = stack.enter_context(ProfileSignal(workdir))
    first, last, running = True, False, None  # running: metrics of the step the devices are at
    while not last:
      profile.before_step(state)
      batch = sharding.from_rows(log.wait_for(batches), split)
      state, metrics = train_step(state, batch, settings)
      step += 1
      if first:  # which was compiled
        jax.block_until_ready(metrics)
        log.start_clock()
        first = False
      if running:  # looked at one step late, so that the devices never wait for us
        log.add(step - 1, running)
      running = metrics

      last = stop.stops_after(step) or step == config.train.num_steps
      saves = last or step % config.train.checkpoint_every == 0
      logs = last or step % config.train.log_every == 0
      if saves or logs:
        log.add(step, running)
        running = None
      if logs:
        log.write(step)
      if saves:
        position = step * config.train.batch_size
        checkpoints.save(step, state, {'position': position, 'fingerprint': fingerprint})
      if grid and step % config.train.sample_every == 0:
        log.picture('samples of the EMA', step, grid(state.ema))
      progress.update(1, log.note)
    progress.done(log.note)
  if step < config.train.num_steps:
    if processes.is_first():
      print(f'Stopped by {stop.name}: step {step} is saved.')
    raise SystemExit(128 + signal.Signals[stop.name])


def _work_alone(workdir: Path, stack: contextlib.ExitStack) -> None:
  """Holds the run's lock until the stack is left; UserError where another process trains it."""
  lock = Path(workdir) / 'train.lock'
  if processes.is_first() and not stack.enter_context(locks.claim(lock, seconds=0)):
    holder = f', process {pid}' if (pid := locks.holder(lock)) else ''
    raise UserError(f'--workdir={workdir} is being trained by another process{holder}.')
