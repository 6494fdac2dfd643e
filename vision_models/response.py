"""Response normalisation: across channels (Krizhevsky et al. 2012) or inside each map.

Arrays are channels-last. Computation is in float32 or wider, the result of the dtype of the input.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from vision_models import response_kernel
from vision_models.layers import channel_sums, neuron, widened


def channel_window_sum(x: Array, before: int, after: int) -> Array:
    """Sum over channels c-before .. c+after, clipped at both ends."""
    channels = x.shape[-1]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])
    total = padded[..., :channels]
    for shift in range(1, before + after + 1):
        total = total + padded[..., shift : shift + channels]
    return total


def _power_of_scale(scale: Array, beta: float) -> Array:
    """Computes scale ** -beta without the slow general power for the papers' beta of 3/4."""
    if beta == 0.75:
        return lax.rsqrt(scale * jnp.sqrt(scale))
    return scale**-beta


def banded_window_sum(dtype: Any, x: Array, before: int, after: int) -> Array:
    """`channel_window_sum` as a product with a banded matrix of zeros and ones, for TPUs.

    Shifts along channels are slow there, small products fast. The matrix unit reads `x` rounded
    to `dtype`, and adds in the dtype of `x`. Squares rounded to bfloat16 move a normalised value
    by at most `beta` times the rounding of the value itself.
    """
    places = np.arange(x.shape[-1])
    offset = places[:, None] - places
    band = jnp.asarray((offset >= -before) & (offset <= after), dtype)
    return jnp.matmul(
        x.astype(dtype), band, precision=lax.Precision.HIGHEST, preferred_element_type=x.dtype
    )


# (x, before, after) -> sums over channels c-before .. c+after.
_WindowSum = Callable[[Array, int, int], Array]


def response_normalized(
    window_sum: _WindowSum, size: int, k: float, alpha: float, beta: float, x: Array
) -> Array:
    """Computes x / (k + alpha * sum x^2)^beta, in float32 or wider, in the dtype of `x`."""
    wide, before = widened(x), size // 2
    scale = k + alpha * window_sum(wide * wide, before, size - 1 - before)
    return (wide * _power_of_scale(scale, beta)).astype(x.dtype)


def response_gradient(
    window_sum: _WindowSum,
    size: int,
    k: float,
    alpha: float,
    beta: float,
    x: Array,
    gradient: Array,
) -> Array:
    """The gradient by `x`, of its dtype."""
    # The scale is recomputed, for a few additions: keeping it would take as much memory
    # as the activations themselves.
    wide, gradient = widened(x), widened(gradient)
    before = size // 2
    after = size - 1 - before
    scale = k + alpha * window_sum(wide * wide, before, after)
    power = _power_of_scale(scale, beta)
    # Channel i feeds the windows of the channels i-after .. i+before.
    inner = window_sum(gradient * wide * power / scale, after, before)
    return (gradient * power - (2.0 * alpha * beta) * wide * inner).astype(x.dtype)


def response_gradient_in_one_pass(
    size: int, k: float, alpha: float, beta: float, x: Array, gradient: Array
) -> Array:
    """`response_gradient` for GPUs, where XLA would write `inner`'s summands to memory.

    Every summand is computed from slices of what is read, for each of its `size` windows again.
    """
    before, channels = size // 2, x.shape[-1]
    after = size - 1 - before
    outer = [(0, 0)] * (x.ndim - 1)
    inputs = jnp.pad(x, [*outer, (size - 1, size - 1)])
    gradients = jnp.pad(gradient, [*outer, (after, before)])

    def shifted(values: Array, by: int) -> Array:
        return widened(values[..., by : by + channels])

    def power_and_summand(window: int) -> tuple[Array, Array]:
        """Of the window around channel c - after + `window`, for every c."""
        squares = [jnp.square(shifted(inputs, window + i)) for i in range(size)]
        scale = k + alpha * sum(squares[1:], squares[0])
        power = _power_of_scale(scale, beta)
        product = shifted(gradients, window) * shifted(inputs, window + before)
        return power, product * power / scale

    windows = [power_and_summand(window) for window in range(size)]
    inner = sum((summand for _, summand in windows[1:]), windows[0][1])
    own = windows[after][0]
    by_input = widened(gradient) * own - (2.0 * alpha * beta) * widened(x) * inner
    return by_input.astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _lrn(x: Array, size: int, k: float, alpha: float, beta: float) -> Array:
    on_tpu = partial(response_normalized, partial(banded_window_sum, x.dtype))
    return lax.platform_dependent(
        x,
        tpu=partial(
            response_kernel.normalized if response_kernel.fit(x.shape) else on_tpu,
            *(size, k, alpha, beta),
        ),
        default=partial(response_normalized, channel_window_sum, size, k, alpha, beta),
    )


def _lrn_forward(x: Array, size: int, k: float, alpha: float, beta: float) -> tuple[Array, Array]:
    return _lrn(x, size, k, alpha, beta), x


def _lrn_backward(
    size: int, k: float, alpha: float, beta: float, x: Array, gradient: Array
) -> tuple[Array]:
    constants = size, k, alpha, beta

    def in_kernel(x: Array, gradient: Array) -> Array:
        return response_kernel.gradient(*constants, False, x, gradient)[0]

    banded = partial(response_gradient, partial(banded_window_sum, x.dtype), *constants)
    in_one_pass = partial(response_gradient_in_one_pass, *constants)
    by_input = lax.platform_dependent(
        x,
        gradient,
        tpu=in_kernel if response_kernel.fit(x.shape) else banded,
        cuda=in_one_pass,
        rocm=in_one_pass,
        default=partial(response_gradient, channel_window_sum, *constants),
    )
    return (by_input,)


_lrn.defvjp(_lrn_forward, _lrn_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _of_rectified(x: Array, bias: Array, size: int, k: float, alpha: float, beta: float) -> Array:
    return _lrn(neuron("relu")(x + bias), size, k, alpha, beta)


def _of_rectified_forward(
    x: Array, bias: Array, size: int, k: float, alpha: float, beta: float
) -> tuple[Array, Array]:
    rectified = neuron("relu")(x + bias)
    return _lrn(rectified, size, k, alpha, beta), rectified


def _of_rectified_backward(
    size: int, k: float, alpha: float, beta: float, rectified: Array, gradient: Array
) -> tuple[Array, Array]:
    def in_passes(rectified: Array, gradient: Array) -> tuple[Array, Array]:
        (by_rectified,) = _lrn_backward(size, k, alpha, beta, rectified, gradient)
        by_input = jnp.where(rectified <= 0, 0, by_rectified)
        return by_input, channel_sums(by_input[None])[0]

    def in_kernel(rectified: Array, gradient: Array) -> tuple[Array, Array]:
        found = response_kernel.gradient(size, k, alpha, beta, True, rectified, gradient)
        return found[0], found[1].astype(gradient.dtype)

    on_tpu = in_kernel if response_kernel.fit(rectified.shape) else in_passes
    return lax.platform_dependent(rectified, gradient, tpu=on_tpu, default=in_passes)


_of_rectified.defvjp(_of_rectified_forward, _of_rectified_backward)


def local_response_normalization(
    x: Array,
    *,
    size: int,
    k: float,
    alpha: float,
    beta: float,
    average: bool,
    bias: Array | None = None,
) -> Array:
    """Response normalisation across channels: x / (k + alpha * sum x^2)^beta.

    Krizhevsky et al. 2012, section 3.3. The window is `size` channels centred on each
    channel, clipped at the first and the last. Computed in float32 or wider.

    Args:
      x: [..., channels], the channels of one tower: the window sees nothing else.
      size: channels in the window (n in the paper).
      k: constant term (2 in the paper, 1 in Caffe).
      alpha: factor of the sum of squares.
      beta: exponent.
      average: divide alpha by `size` (a mean of squares), as cuda-convnet and Caffe do;
        the paper's formula does not.
      bias: [channels]; given, it is added to `x`, and a ReLU comes before the normalisation.

    Returns:
      Array of the shape and dtype of `x`.
    """
    alpha = alpha / size if average else alpha
    if bias is not None:
        return _of_rectified(x, bias.astype(x.dtype), size, k, alpha, beta)
    return _lrn(x, size, k, alpha, beta)


def spatial_response_normalization(
    x: Array, *, size: int, k: float, alpha: float, beta: float
) -> Array:
    """Response normalisation over a size x size neighbourhood inside each map.

    cuda-convnet's `rnorm` layer: x / (k + alpha / size^2 * sum x^2)^beta, the
    window clipped at the borders. The 2012 code has one after its second
    cross-map normalisation (`cnorm2` of layers-145.cfg); the paper does not.
    Computed in float32 or wider.

    Args:
      x: [batch, height, width, channels].
      size: side of the window in pixels, odd.
      k: constant term.
      alpha: factor of the sum of squares, divided by the window's area.
      beta: exponent.

    Returns:
      Array of the shape and dtype of `x`.
    """
    wide = widened(x)
    total = lax.reduce_window(wide * wide, 0.0, lax.add, (1, size, size, 1), (1, 1, 1, 1), "SAME")
    return (wide * _power_of_scale(k + alpha / size**2 * total, beta)).astype(x.dtype)
