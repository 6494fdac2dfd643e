"""Convolution, and the bias after it.

Arrays are channels-last, [batch, height, width, channels]; kernels are [height, width, in,
out]. XLA's own operation does the work. On CPUs that is a matrix product over windows that are
copied side by side, which is slow where few numbers come of each copy: with few maps.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from vision_models.layers import channel_sums
from vision_models.pooling import Padding


def convolve(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
) -> Array:
    """Convolution plus bias, in the dtype of `x`; reverse mode alone.

    On CPUs what is not finite in `x` may reach one column further than its window. Where it is
    differentiated inside `jax.shard_map`, `x` varies over every mesh axis that `kernel` does.

    Args:
      x: [batch, height, width, in].
      kernel: [kernel height, kernel width, in, out].
      bias: [out].
      stride: pixels between windows, the same in both directions.
      padding: zeros before and after, ((top, bottom), (left, right)).
    """
    kernel = kernel.astype(x.dtype)
    if stride == 1:
        out = _stride_one(x, kernel, padding)
    else:
        out = _convolved(x, kernel, padding, (stride, stride))
    return out if bias is None else add_bias(out, bias.astype(x.dtype))


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """[B, H, W, C] + [C], whose gradient is by `layers.channel_sums`; reverse mode alone."""
    return x + bias


add_bias.defvjp(
    lambda x, bias: (x + bias, None),
    lambda _, gradient: (gradient, channel_sums(gradient[None])[0]),
)


def _convolved(x: Array, kernel: Array, padding: Padding, strides: tuple[int, int]) -> Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# The gradient by the input is written out as the convolution that it is, so that it, too, has the
# form that is quick for its number of maps.
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _stride_one(x: Array, kernel: Array, padding: Padding) -> Array:
    """A convolution at every pixel."""

    def on_cpu(x: Array, kernel: Array) -> Array:
        _, window, maps_in, maps_out = kernel.shape
        columns = x.shape[2] + sum(padding[1]) - window + 1
        # From so few maps, or to so few, as AVX-512 has it in float32 (docs/results.md).
        if columns % 2 == 0 and window > 1 and (maps_in <= 4 or maps_out <= 16):
            return _by_two_columns(x, kernel, padding)
        return _convolved(x, kernel, padding, (1, 1))

    return lax.platform_dependent(
        x, kernel, cpu=on_cpu, default=lambda x, kernel: _convolved(x, kernel, padding, (1, 1))
    )


def _by_two_columns(x: Array, kernel: Array, padding: Padding) -> Array:
    """Two neighbouring outputs of a row at a time, from windows a column wider.

    The kernel is there twice, a column apart, among zeros: half as many windows, for twice as
    many numbers each. The output has an even number of columns.
    """
    left, right = (jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in (0, 1))
    pairs = _convolved(x, jnp.concatenate([left, right], -1), padding, (1, 2))
    images, rows, columns, _ = pairs.shape
    return pairs.reshape(images, rows, 2 * columns, kernel.shape[3])


def _forward(x: Array, kernel: Array, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _stride_one(x, kernel, padding), (x, kernel)


def _backward(padding: Padding, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    (height, width), ((top, bottom), (left, right)) = kernel.shape[:2], padding
    around = ((height - 1 - top, height - 1 - bottom), (width - 1 - left, width - 1 - right))
    by_input = _stride_one(gradient, kernel[::-1, ::-1].swapaxes(2, 3), around)
    of_kernel = jax.vjp(lambda kernel: _convolved(x, kernel, padding, (1, 1)), kernel)[1]
    return by_input, *of_kernel(gradient)


_stride_one.defvjp(_forward, _backward)
