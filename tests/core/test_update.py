"""The gradient step: Adam to the letter, and batches in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfg_jax.core import update


def test_microbatches_keep_the_order_of_the_losses():
  """And each sample its key, whichever part it is in."""
  draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, 1000).astype(float))
  gradient = lambda params, noisy, keys: (noisy.sum(), noisy + 1000 * draw(keys))  # noqa: E731
  keys = jax.random.split(jax.random.key(0), 12)
  grads, losses = update.in_microbatches(gradient, 3)(jnp.float32(0), jnp.arange(12.0), keys)
  np.testing.assert_array_equal(losses, np.arange(12) + 1000 * draw(keys))
  assert grads == np.arange(12).sum() / 3


def test_the_optimizer_is_adam_with_a_warm_up_on_clipped_gradients(tiny):
  """Kingma & Ba's algorithm 1 in float64, on gradients of norm at most train.grad_clip."""
  changes = {'adam_b1': 0.8, 'adam_b2': 0.95, 'grad_clip': 2.0, 'learning_rate': 0.1}
  tiny.train.update(changes | {'warmup_steps': 3})
  optimizer = update.make_optimizer(tiny.train)
  random = np.random.default_rng(0)
  x = {'a': jnp.zeros(3), 'b': jnp.zeros((2, 2))}
  state = optimizer.init(x)
  expected, m, v = np.zeros(7), np.zeros(7), np.zeros(7)
  for k, size in enumerate((30.0, 0.1, 5.0, 1.0, 20.0), start=1):
    g = random.normal(0, size, 7)
    grads = {
      'a': jnp.asarray(g[:3], jnp.float32),
      'b': jnp.asarray(g[3:].reshape(2, 2), jnp.float32),
    }
    updates, state = optimizer.update(grads, state, x)
    x = optax.apply_updates(x, updates)
    g *= min(1, 2 / np.linalg.norm(g))
    m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
    rate = 0.1 * min(1, k / 3)
    expected -= rate * (m / (1 - 0.8**k)) / (np.sqrt(v / (1 - 0.95**k)) + 1e-8)
    np.testing.assert_allclose(np.concatenate([x['a'], x['b'].ravel()]), expected, rtol=1e-4)
