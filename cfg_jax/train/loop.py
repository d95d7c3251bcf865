"""config → checkpoints: Algorithm 1 under `jax.jit`, on one core or many hosts."""

import contextlib
import functools
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import optax

from cfg_jax.core import config as config_lib
from cfg_jax.core import processes, sharding
from cfg_jax.core import state as train_state
from cfg_jax.core.checkpoint import Checkpoints
from cfg_jax.core.progress import Progress
from cfg_jax.core.state import TrainState
from cfg_jax.data import batches as data
from cfg_jax.data import registry as datasets
from cfg_jax.equations import objectives as objective
from cfg_jax.train import log as train_log
from cfg_jax.train.log import Log, by_quarter


def make_optimizer(train: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Adam with a constant rate after a linear warm-up, on gradients clipped by their global norm."""
  rate = optax.schedules.warmup_constant_schedule(0.0, train.learning_rate, train.warmup_steps)
  return optax.chain(
    optax.clip_by_global_norm(train.grad_clip),
    optax.adam(lambda count: rate(count + 1), b1=train.adam_b1, b2=train.adam_b2),
  )


def make_train_step(
  config: ml_collections.ConfigDict,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
  """Algorithm 1, Adam and EMA as a pure function: (state, {'x', 'c'}) → (state, metrics).

  All randomness comes from config.seed and state.step, so a resumed run repeats it exactly. It is
  drawn for the whole batch, so that neither the devices of the mesh nor train.microbatches change
  any sample's λ, ε, label or dropped units.
  """
  network = config_lib.network_of(config)
  apply = train_state.apply_fn(network)
  train, diffusion = config.train, config.diffusion

  def loss_of(params, noisy, keys):
    eps_fn = functools.partial(apply, params, keys=keys if config.model.dropout else None)
    losses = objective.losses(eps_fn, noisy)
    return jnp.mean(losses), losses

  gradient = in_microbatches(jax.grad(loss_of, has_aux=True), train.microbatches)
  gradient = sharding.mean_over_devices(gradient, mesh)

  def train_step(state, batch):
    k_loss, k_net = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), state.step))
    noisy = objective.draw(
      k_loss,
      batch['x'],
      batch['c'],
      p_uncond=train.p_uncond,
      null_class=network.num_classes,
      lambda_min=diffusion.lambda_min,
      lambda_max=diffusion.lambda_max,
    )
    grads, losses = gradient(state.params, noisy, jax.random.split(k_net, len(batch['c'])))
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = optax.incremental_update(params, state.ema, 1 - train.ema_decay)
    metrics = {
      'loss': jnp.mean(losses),
      'grad_norm': optax.tree.norm(grads),
      'quarters': by_quarter(losses, noisy.lam, diffusion.lambda_min, diffusion.lambda_max),
    }
    return TrainState(state.step + 1, params, ema, opt_state), metrics

  return train_step


def in_microbatches(gradient: Callable, n: int) -> Callable:
  """The same function for batches of which the devices can hold the activations of an nth only.

  gradient: (params, *samples) → (mean gradient, losses (B,)), called n times with B/n samples; the
  samples are trees of arrays (B, …).
  """
  if n == 1:
    return gradient

  def accumulated(params, *samples):
    parts = jax.tree.map(lambda x: x.reshape(n, -1, *x.shape[1:]), samples)

    def add(total, part):
      grads, losses = gradient(params, *part)
      return jax.tree.map(jnp.add, total, grads), losses

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, losses = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda g: g / n, total), losses.reshape(-1)

  return accumulated


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
  abstract = jax.eval_shape(create)
  placed = train_state.shardings(abstract, mesh, config.train.shard_optimizer)
  with contextlib.ExitStack() as stack:  # however this ends, saves under way reach the disk
    checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints)
    stack.callback(checkpoints.close)
    restored = checkpoints.restore(sharding.abstract(abstract, placed))
    if restored is None:
      state, position = jax.jit(create, out_shardings=placed)(), 0
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
      make_train_step(config, optimizer, mesh),
      in_shardings=(placed, split),
      out_shardings=(placed, everywhere),
      donate_argnums=0,
    )
    grid = train_log.make_grid(config, mesh) if config.train.sample_every else None
    log = Log(workdir, step, config.train.batch_size, train_log.peak_images_per_s(config))
    stack.callback(log.close)
    progress = Progress(
      f'train {Path(workdir).name}',
      config.train.num_steps,
      step,
      unit='steps',
      silent=not processes.is_first(),
    )
    stop = stack.enter_context(processes.StopSignal())
    profile = stack.enter_context(train_log.ProfileSignal(workdir))
    last, running = False, None  # running: the metrics of the step that the devices are at
    while not last:
      profile.before_step(state)
      batch = sharding.from_rows(log.wait_for(batches), split)
      state, metrics = train_step(state, batch)
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
      if grid and step % config.train.sample_every == 0:
        log.picture('samples of the EMA', step, grid(state.ema))
      progress.update(1, f'loss {log.loss:.3f}')
    progress.done(f'loss {log.loss:.3f}')
  if step < config.train.num_steps:
    if processes.is_first():
      print(f'Stopped by {stop.name}: step {step} is saved.')
    raise SystemExit(128 + signal.Signals[stop.name])
