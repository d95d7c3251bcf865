"""Trains the classifier behind FD-digits, in about a minute.

  python -m experiments.train_digits_classifier --out cfg_jax/evaluate/extractors/digits.npz

Every fifth digit (360 of 1 797) is held out. Images are shifted by up to a pixel and made noisy.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from sklearn.datasets import load_digits

from cfg_jax.core import command as cli
from cfg_jax.data.digits import to_uint8
from cfg_jax.evaluate.extractors.digits import logits_and_features

SHAPES = {'conv1': (3, 3, 1, 32), 'conv2': (3, 3, 32, 64), 'dense1': (1024, 64), 'dense2': (64, 10)}
NUM_STEPS, BATCH_SIZE = 4000, 128


def split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """((images, labels) to train on, the same held out): uint8 (N, 8, 8, 1), int (N,)."""
  digits = load_digits()
  images, labels = to_uint8(digits.images), digits.target
  held_out = np.arange(len(images)) % 5 == 0
  return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


def augment(key: jax.Array, images: jax.Array) -> jax.Array:
  """Shifts every image by −1, 0 or 1 pixels each way, and adds noise of 12 grey levels."""
  k_shift, k_noise = jax.random.split(key)
  shifts = jax.random.randint(k_shift, (len(images), 2), 0, 3)
  padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  cut = lambda image, shift: jax.lax.dynamic_slice(image, (*shift, 0), (8, 8, 1))  # noqa: E731
  noise = 12 * jax.random.normal(k_noise, images.shape)
  return jnp.clip(jax.vmap(cut)(padded, shifts) + noise, 0, 255)


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  (images, labels), (test_images, test_labels) = split()
  params = {}
  for i, (name, shape) in enumerate(SHAPES.items()):
    init = jax.nn.initializers.he_normal()
    params[name] = init(jax.random.fold_in(jax.random.key(0), i), shape)
    params[f'{name}_bias'] = jnp.zeros(shape[-1])
  optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, NUM_STEPS), weight_decay=1e-3)

  @jax.jit
  def step(params, opt_state, key, x, y):
    def loss(params):
      logits, _ = logits_and_features(params, augment(key, x.astype(jnp.float32)))
      return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  opt_state = optimizer.init(params)
  rng = np.random.default_rng(0)
  for i in range(NUM_STEPS):
    batch = rng.integers(len(images), size=BATCH_SIZE)
    key = jax.random.fold_in(jax.random.key(1), i)
    params, opt_state = step(params, opt_state, key, images[batch], labels[batch])
    if (i + 1) % 500 == 0:
      accuracy = np.mean(logits_and_features(params, test_images)[0].argmax(-1) == test_labels)
      print(f'step {i + 1}: held-out accuracy {accuracy:.4f}', flush=True)
  with Path(flags.FLAGS.out).open('wb') as f:
    np.savez(f, **{name: np.asarray(value) for name, value in params.items()})


if __name__ == '__main__':
  flags.DEFINE_string('out', None, 'The .npz to write.')
  flags.mark_flags_as_required(['out'])
  cli.run(main)
