"""Layers that Flax does not have, or that the papers define differently.

Arrays are channels-last, [batch, height, width, channels]. Computation runs in
the dtype of the input (parameters are cast to it), except where a docstring
says otherwise.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

NEURONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


def neuron(name: str) -> Callable[[Array], Array]:
    """The nonlinearity called `name`.

    Raises:
      ValueError: no such neuron; the message lists those there are.
    """
    if name not in NEURONS:
        raise ValueError(f"unknown neuron {name!r}; choose one of {', '.join(NEURONS)}")
    return NEURONS[name]


def gaussian(std: float) -> Callable[..., Array]:
    """Initialiser: independent draws from a zero-mean Gaussian of deviation `std`."""
    return nnx.initializers.normal(stddev=std)


def _channel_window_sum(x: Array, before: int, after: int) -> Array:
    """Sum over channels c-before .. c+after, clipped at both ends."""
    channels = x.shape[-1]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])
    total = padded[..., :channels]
    for shift in range(1, before + after + 1):
        total = total + padded[..., shift : shift + channels]
    return total


def _power_of_scale(scale: Array, beta: float) -> Array:
    """Scale ** -beta, avoiding the slow general power for the papers' beta of 3/4."""
    if beta == 0.75:
        return lax.rsqrt(scale * jnp.sqrt(scale))
    return scale**-beta


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _lrn(x: Array, size: int, k: float, alpha: float, beta: float) -> Array:
    before = size // 2
    scale = k + alpha * _channel_window_sum(x * x, before, size - 1 - before)
    return x * _power_of_scale(scale, beta)


def _lrn_forward(x: Array, size: int, k: float, alpha: float, beta: float) -> tuple[Array, Array]:
    return _lrn(x, size, k, alpha, beta), x


def _lrn_backward(
    size: int, k: float, alpha: float, beta: float, x: Array, gradient: Array
) -> tuple[Array]:
    # The scale is recomputed rather than kept: it costs a few adds, and keeping it
    # costs as much memory as the activations themselves.
    before = size // 2
    after = size - 1 - before
    scale = k + alpha * _channel_window_sum(x * x, before, after)
    power = _power_of_scale(scale, beta)
    # Channel i feeds the windows of the channels i-after .. i+before.
    inner = _channel_window_sum(gradient * x * power / scale, after, before)
    return (gradient * power - (2.0 * alpha * beta) * x * inner,)


_lrn.defvjp(_lrn_forward, _lrn_backward)


def local_response_normalization(
    x: Array,
    *,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    average: bool = False,
) -> Array:
    """Response normalisation across channels: x / (k + alpha * sum x^2)^beta.

    Krizhevsky et al. 2012, section 3.3; its constants are the defaults. The
    window is `size` channels centred on each channel, clipped at the first and
    the last. Computed in float32 whatever the dtype of `x`.

    Args:
      x: [..., channels], the channels of one tower: the window sees nothing else.
      size: channels in the window (n in the paper).
      k: constant term (2 in the paper, 1 in Caffe).
      alpha: factor of the sum of squares.
      beta: exponent.
      average: divide alpha by `size`, as cuda-convnet and Caffe do (a mean of
        squares); the paper's formula does not.

    Returns:
      Array of the shape and dtype of `x`.
    """
    alpha = alpha / size if average else alpha
    return _lrn(x.astype(jnp.float32), size, k, alpha, beta).astype(x.dtype)


def spatial_response_normalization(
    x: Array, *, size: int = 5, k: float = 1.0, alpha: float = 1e-3, beta: float = 0.75
) -> Array:
    """Response normalisation over a size x size neighbourhood inside each map.

    cuda-convnet's `rnorm` layer: x / (k + alpha / size^2 * sum x^2)^beta, the
    window clipped at the borders. The 2012 code has one after its second
    cross-map normalisation (`cnorm2` of layers-145.cfg); the paper has not.
    Computed in float32 whatever the dtype of `x`.

    Args:
      x: [batch, height, width, channels].
      size: side of the window in pixels, odd.
      k: constant term.
      alpha: factor of the sum of squares, divided by the window's area.
      beta: exponent.

    Returns:
      Array of the shape and dtype of `x`.
    """
    wide = x.astype(jnp.float32)
    total = lax.reduce_window(wide * wide, 0.0, lax.add, (1, size, size, 1), (1, 1, 1, 1), "SAME")
    return (wide * _power_of_scale(k + alpha / size**2 * total, beta)).astype(x.dtype)


def max_pool(x: Array, *, window: int = 3, stride: int = 2) -> Array:
    """Maximum over window x window neighbourhoods, no padding.

    [B, H, W, C] -> [B, (H - window) // stride + 1, (W - window) // stride + 1, C].
    A window larger than the stride overlaps (Krizhevsky et al. 2012, section 3.4).
    """
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), "VALID"
    )


def dropout(x: Array, rate: float, keys: Array | None) -> Array:
    """Dropout as in Krizhevsky et al. 2012, section 4.2.

    In training each value is kept with probability 1 - rate and is not
    rescaled; in evaluation all are kept and multiplied by 1 - rate. (The
    "inverted" form of later libraries, which rescales in training, is equal in
    expectation, but starts training with twice the activations.)

    Args:
      x: [batch, features].
      rate: probability of dropping, in [0, 1).
      keys: one random key per example, [batch]; None in evaluation. With a key
        per example the mask of an example does not depend on how the batch is
        spread over devices.

    Returns:
      Array of the shape and dtype of `x`.
    """
    if rate == 0.0:
        return x
    if keys is None:
        return x * (1.0 - rate)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x, 0)


def fold_in_each(keys: Array, number: Array | int) -> Array:
    """`jax.random.fold_in` applied to each of the keys: [batch] -> [batch]."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def convolve(
    x: Array,
    kernel: Array,
    bias: Array,
    *,
    stride: int = 1,
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
) -> Array:
    """Convolution plus bias.

    Args:
      x: [batch, height, width, in].
      kernel: [kernel height, kernel width, in, out].
      bias: [out].
      stride: pixels between windows, the same in both directions.
      padding: zeros before and after, ((top, bottom), (left, right)).
    """
    out = lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out + bias.astype(x.dtype)
