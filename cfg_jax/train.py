"""config → checkpoints: Algorithm 1 under `jax.jit`, on one core or many hosts.

python -m cfg_jax.train --config configs/digits.py --workdir runs/one [--config.train.p_uncond=0.2]
"""

import contextlib
import functools
import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import optax
import tensorboardX
from absl import flags

from cfg_jax import cli, data, datasets, objective, plan, processes, sharding, train_state
from cfg_jax import config as config_lib
from cfg_jax.checkpoint import Checkpoints
from cfg_jax.progress import Progress
from cfg_jax.train_state import TrainState


def make_optimizer(train: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Adam with a constant rate after a linear warm-up, on gradients clipped by their global norm."""
  rate = optax.schedules.warmup_constant_schedule(0.0, train.learning_rate, train.warmup_steps)
  return optax.chain(
    optax.clip_by_global_norm(train.grad_clip),
    optax.adam(lambda count: rate(count + 1), b1=train.adam_b1, b2=train.adam_b2),
  )


def make_train_step(
  config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
  """Algorithm 1, Adam and EMA as a pure function: (state, {'x', 'c'}) → (state, metrics).

  All randomness comes from config.seed and state.step, so a resumed run repeats it exactly.
  """
  network = config_lib.network_of(config)
  apply = train_state.apply_fn(network)
  train = config.train

  def train_step(state, batch):
    k_loss, k_net = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), state.step))

    def loss_of(params):
      eps_fn = functools.partial(apply, params, key=k_net if config.model.dropout else None)
      return objective.loss(
        eps_fn,
        k_loss,
        batch['x'],
        batch['c'],
        p_uncond=train.p_uncond,
        null_class=network.num_classes,
        lambda_min=config.diffusion.lambda_min,
        lambda_max=config.diffusion.lambda_max,
      )

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = optax.incremental_update(params, state.ema, 1 - train.ema_decay)
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, ema, opt_state), metrics

  return train_step


def train(config: ml_collections.ConfigDict, workdir: Path) -> None:
  """Trains to config.train.num_steps, going on from the newest whole checkpoint in workdir.

  SIGTERM and SIGINT save a checkpoint and raise SystemExit. Raises ValueError, before anything is
  written, where the config is wrong or the work directory was made by another, and
  FloatingPointError where the loss or the gradient is not finite: nothing is saved from then on.
  Of several processes (see `processes`) each calls this; the first one logs and shows progress.
  """
  config_lib.validate(config, jax.device_count())
  config_lib.record(config, workdir)
  dataset = config_lib.dataset_of(config)
  data_dir = Path(config.data.dir).expanduser()
  source = processes.first_then_others(functools.partial(dataset.open, data_dir, 'train'))
  fingerprint = datasets.fingerprint(source)

  mesh = sharding.data_mesh()
  everywhere, split = sharding.replicated(mesh), sharding.batch(mesh)
  optimizer = make_optimizer(config.train)
  create = functools.partial(
    train_state.create, config_lib.network_of(config), optimizer, config.seed
  )
  abstract = sharding.abstract(jax.eval_shape(create), everywhere)
  with contextlib.ExitStack() as stack:  # however this ends, saves under way reach the disk
    checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints)
    stack.callback(checkpoints.close)
    restored = checkpoints.restore(abstract)
    if restored is None:
      state, position = jax.jit(create, out_shardings=everywhere)(), 0
    else:
      state, extra = restored
      position = extra['position']
      if extra['fingerprint'] != fingerprint:
        raise ValueError(
          f'data.name={config.data.name} has fingerprint {fingerprint}, but {workdir} was trained '
          f'on {extra["fingerprint"]}: restore that data in data.dir, or use a new --workdir.'
        )
    step = int(state.step)
    if step >= config.train.num_steps:
      return
    checkpoints.set_aside_after(step)

    batches = data.Batches(
      source,
      batch_size=config.train.batch_size,
      seed=config.seed,
      flip=config.data.flip,
      position=position,
      rows=sharding.rows(split, config.train.batch_size),
    )
    stack.callback(batches.close)
    train_step = jax.jit(
      make_train_step(config, optimizer),
      in_shardings=(everywhere, split),
      out_shardings=(everywhere, everywhere),
      donate_argnums=0,
    )
    log = Log(workdir, step, config.train.batch_size)
    stack.callback(log.close)
    progress = Progress(
      f'train {Path(workdir).name}',
      config.train.num_steps,
      step,
      unit='steps',
      silent=not processes.is_first(),
    )
    stop = stack.enter_context(processes.StopSignal())
    last, running = False, None  # running: the metrics of the step that the devices are at
    while not last:
      state, metrics = train_step(state, sharding.from_rows(next(batches), split))
      step += 1
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
      progress.update(1, f'loss {log.loss:.3f}')
    progress.done(f'loss {log.loss:.3f}')
  if step < config.train.num_steps:
    if processes.is_first():
      print(f'Stopped by {stop.name}: step {step} is saved.')
    raise SystemExit(128 + signal.Signals[stop.name])


class Log:
  """metrics.jsonl, one line per logged step with means since the line before, and TensorBoard."""

  def __init__(self, workdir: Path, step: int, batch_size: int):
    """Goes on after `step`: what an interrupted process logged beyond it is dropped."""
    self._file = self._board = None
    if processes.is_first():
      path = Path(workdir) / 'metrics.jsonl'
      lines = path.read_text().splitlines(keepends=True) if path.exists() else []
      kept = [line for line in lines if line.endswith('\n') and json.loads(line)['step'] <= step]
      config_lib.write_atomically(path, ''.join(kept))
      self._file = path.open('a')
      self._board = tensorboardX.SummaryWriter(str(Path(workdir) / 'tensorboard'), purge_step=step)
    self._batch_size, self._since, self._sums, self._count = batch_size, time.monotonic(), {}, 0
    self.loss = math.nan

  def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes in one step's metrics; FloatingPointError, naming the step, if one is not finite."""
    for name, value in jax.device_get(metrics).items():
      if not math.isfinite(value):
        raise FloatingPointError(
          f'{name} is {value} at step {step}; nothing was saved since the last checkpoint. '
          'Try a lower train.learning_rate or a longer train.warmup_steps.'
        )
      self._sums[name] = self._sums.get(name, 0.0) + float(value)
    self._count += 1
    self.loss = float(metrics['loss'])

  def write(self, step: int) -> None:
    """Writes the line of `step`."""
    now = time.monotonic()
    line = {'step': step} | {name: total / self._count for name, total in self._sums.items()}
    line['images_per_s'] = self._count * self._batch_size / (now - self._since)
    if self._file:
      self._file.write(json.dumps(line) + '\n')
      self._file.flush()
      for name, value in line.items():
        if name != 'step':
          self._board.add_scalar(name, value, step)
    self._since, self._sums, self._count = now, {}, 0

  def close(self) -> None:
    """Closes both files."""
    if self._file:
      self._file.close()
      self._board.close()


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  config = config_lib.of_flags()
  if flags.FLAGS.plan:
    optimizer = make_optimizer(config.train)
    plan.main(config, optimizer, make_train_step(config, optimizer))
    return
  processes.start_by_flags()
  sharding.setup_jax(config.train.batch_size)
  train(config, Path(flags.FLAGS.workdir))


if __name__ == '__main__':
  config_lib.define_flags()
  plan.define_flags()
  processes.define_flags()
  flags.register_multi_flags_validator(
    ['workdir', 'plan'],
    lambda given: given['workdir'] or given['plan'],
    'Flag --workdir is missing.',
  )
  cli.run(main)
