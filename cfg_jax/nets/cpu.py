"""What a CPU computes in a way of its own, where that is faster.

These are 3×3 convolutions, attention, and what a group norm has of each group.

The platform is chosen when a program is lowered. GPUs and TPUs get XLA's own convolutions and JAX's
own attention. On two cores a tenth of a step of ADM-64 is saved by `_product`, a thirtieth by
`_phases`, as of a step on the digits.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

POSITIONS, CHANNELS = 256, 256  # an image is small up to this H·W, wide from this C_in on


def convolve(x: jax.Array, kernel: jax.Array, strides, padding, **kwargs) -> jax.Array:
  """`jax.lax.conv_general_dilated` of x (B, H, W, C_in) with a kernel (h, w, C_in, C_out).

  For `nnx.Conv`, with its default strides and padding, and odd h and w. Returns (B, H, W, C_out):
  small and wide images' by `_product`.
  """
  convolution = _default(strides, padding, **kwargs)
  _, height, width, channels = x.shape
  if kernel.shape[:2] == (3, 3) and _small_and_wide(height, width, channels):
    return _of_platform(_product, convolution, x, kernel)
  return _of_platform(_plain, convolution, x, kernel)


def _default(strides, padding, **kwargs):
  return functools.partial(
    jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **kwargs
  )


def convolve_upsampled(x: jax.Array, kernel: jax.Array, *args, **kwargs) -> jax.Array:
  """`convolve` of `upsample(x)`, for a 3×3 kernel: (B, H, W, C_in) → (B, 2H, 2W, C_out).

  Where that is not by `_product`, it is by `_phases`.
  """
  _, height, width, channels = x.shape
  if _small_and_wide(2 * height, 2 * width, channels):
    return convolve(upsample(x), kernel, *args, **kwargs)

  def two_steps(x, kernel):
    return _default(*args, **kwargs)(upsample(x), kernel)

  return _of_platform(_phases, two_steps, x, kernel)


def upsample(x: jax.Array) -> jax.Array:
  """Nearest neighbour: (B, H, W, C) → (B, 2H, 2W, C)."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def _small_and_wide(height: int, width: int, channels: int) -> bool:
  return height * width <= POSITIONS and channels >= CHANNELS


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _of_platform(cpu: Callable, default: Callable, x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The platform is chosen forward and backward, so that only x and kernel are kept."""
  return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _keep(cpu, default, x, kernel):
  wanted = [() if side.perturbed else None for side in (x, kernel)]  # a tree's shape is static
  x, kernel = x.value, kernel.value
  return _of_platform(cpu, default, x, kernel), (x, kernel, wanted)


def _gradients(cpu, default, kept, gradient):
  *sides, wanted = kept
  if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
    return tuple(map(jnp.zeros_like, sides))

  def by(side, f):
    if f is _plain:
      return _plain_gradient_by[side]

    def transposed(gradient, *sides):
      fixed = lambda value: f(*(value if i == side else s for i, s in enumerate(sides)))  # noqa: E731
      return jax.linear_transpose(fixed, sides[side])(gradient)[0]

    return transposed

  return tuple(
    jnp.zeros_like(sides[side])
    if wanted[side] is None
    else jax.lax.platform_dependent(gradient, *sides, cpu=by(side, cpu), default=by(side, default))
    for side in (0, 1)
  )


_of_platform.defvjp(_keep, _gradients, symbolic_zeros=True)


def _conv(x, kernel, padding):
  layout = ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)


def _plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Its gradients are convolutions of the one layout that XLA for a CPU is fast at.

  JAX's own have others, which XLA mends at the top of a program, but not inside a `scan` or `cond`:
  there a classifier's gradient took nine times as long.
  """
  return _conv(x, kernel, 'SAME')


def _plain_by_x(gradient, x, kernel):
  del x
  return _conv(gradient, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), 'SAME')


def _plain_by_kernel(gradient, x, kernel):
  if kernel.shape[:2] == (1, 1):  # a quarter of the time that the convolution takes
    found = jnp.einsum('ni,no->io', *(side.reshape(-1, side.shape[-1]) for side in (x, gradient)))
    return found.reshape(kernel.shape)
  padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
  found = _conv(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), padding)
  return found.transpose(1, 2, 0, 3)


_plain_gradient_by = (_plain_by_x, _plain_by_kernel)


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Each position's 3×3 patch, times the kernel: one matrix product.

  For the gradients of a convolution XLA first transposes kernel and images. Where these are small
  beside the kernel, patches cost less.
  """
  b, h, w, _ = x.shape
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  patches = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
  patches = jnp.concatenate(patches, axis=-1).reshape(b * h * w, -1)
  return (patches @ kernel.reshape(patches.shape[-1], -1)).reshape(b, h, w, -1)


def _phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The enlarged image's convolution from the small one, in 4/9 of the multiplications.

  Even and odd rows and columns of the result are four convolutions with 2×2 kernels.
  """
  b, h, w, _ = x.shape
  layout = ('NHWC', 'HWIO', 'NHWC')
  conv = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=layout)
  y = [
    [
      conv(x, kernel2x2, (1, 1), ((1 - i, i), (1 - j, j)))
      for j, kernel2x2 in enumerate(_even_and_odd(kernel2x3, axis=1))
    ]
    for i, kernel2x3 in enumerate(_even_and_odd(kernel, axis=0))
  ]
  return jnp.stack([jnp.stack(row, axis=3) for row in y], axis=2).reshape(b, 2 * h, 2 * w, -1)


def _even_and_odd(kernel: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """The enlarged image's kernel on the small one's rows i - 1 and i, and on rows i and i + 1.

  Of the three enlarged rows under a kernel two are copies of one.
  """
  k0, k1, k2 = jnp.unstack(kernel, axis=axis)
  return jnp.stack([k0, k1 + k2], axis=axis), jnp.stack([k0 + k1, k2], axis=axis)


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """softmax(q kᵀ/√d) v of each head: (B, T, N, d) of all three, and of the result.

  The softmax is in float32. On NVIDIA's GPUs it is cuDNN's flash attention where that can be.
  """
  return jax.lax.platform_dependent(
    q, k, v, cpu=_heads_first, cuda=_flash, default=jax.nn.dot_product_attention
  )


def _heads_first(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Heads come first and the division last.

  Twice as fast, at T = 1024, as `jax.nn.dot_product_attention`, which passes over (B, N, T, T) more
  often.
  """
  q, k, v = (y.swapaxes(1, 2) for y in (q * q.shape[-1] ** -0.5, k, v))  # (B, N, T, d)
  logits = jnp.einsum('bntd,bnsd->bnts', q, k, preferred_element_type=jnp.float32)
  exp = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
  out = jnp.einsum('bnts,bnsd->bntd', exp.astype(v.dtype), v, preferred_element_type=jnp.float32)
  return (out / exp.sum(-1, keepdims=True)).astype(v.dtype).swapaxes(1, 2)


def _flash(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """cuDNN's attention where this machine's GPU has it for such arrays; else XLA's."""
  capability = getattr(jax.devices()[0], 'compute_capability', '')  # '9.0'; AMD's are no numbers
  ampere = capability[:1].isdigit() and float(capability) >= 8
  half = q.dtype in (jnp.bfloat16, jnp.float16)
  fits = q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
  implementation = 'cudnn' if ampere and half and fits else 'xla'
  return jax.nn.dot_product_attention(q, k, v, implementation=implementation)


def over_groups(x: jax.Array, size: int) -> jax.Array:
  """A group's number for each of its `size` neighbouring channels: (…, G) → (…, G · size).

  On a CPU it is a product, to the same bits. XLA would repeat what leads to it for every pixel that
  needs it, with a division to find the group: on one core an eighth of the digits' gradient.
  """

  def product(x):
    return x @ repeated(jnp.eye(x.shape[-1], dtype=x.dtype))

  def repeated(x):
    return jnp.repeat(x, size, axis=-1)

  return jax.lax.platform_dependent(x, cpu=product, default=repeated)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def mean_of_groups(x: jax.Array, size: int) -> jax.Array:
  """The mean over each `size` neighbouring channels: (…, C) → (…, C/size); see `over_groups`."""
  return x.reshape(*x.shape[:-1], -1, size).mean(-1)


def _over_its_group(size, _, gradient):
  return (over_groups(gradient / size, size),)


mean_of_groups.defvjp(lambda x, size: (mean_of_groups(x, size), None), _over_its_group)


@jax.custom_vjp
def whole_gradient(x: jax.Array) -> jax.Array:
  """x; on a CPU the gradient by x is computed once, where XLA would repeat it in its consumers.

  Those are a convolution's two products, its bias and the residual sum: without this a block's
  backward pass grows with the number of blocks behind it, a tenth of the time.
  """
  return x


def _once(_, gradient):
  barrier = jax.lax.optimization_barrier
  return (jax.lax.platform_dependent(gradient, cpu=barrier, default=lambda gradient: gradient),)


whole_gradient.defvjp(lambda x: (x, None), _once)
