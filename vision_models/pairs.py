"""Pairs of columns: how TPUs compute large maps of few channels.

A TPU works on 128 channels at a time, and its memory holds 128 even where a map has 64. Two
neighbouring columns side by side fill them: [B, H, W, C] is read as [B, H, W / 2, 2 C]. A
convolution then multiplies by more zeros, yet takes half the time. Maps stay pairs from a
convolution to the next and to the pool: XLA moves a reshape through the bias and ReLU to the one
that undoes it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Shape = tuple[int, ...]
_SAME = ((1, 1), (1, 1))


def fit_map(shape: Shape) -> bool:
    """Whether [B, H, W, C] is large, of at most 64 channels, and has an even number of columns."""
    return shape[2] >= 112 and shape[2] % 2 == 0 and shape[3] <= 64


def fit(x: Shape, kernel: Shape, padding: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    """Whether `convolve` takes a convolution of stride 1 from [B, H, W, C] by [h, w, C, O]."""
    return fit_map(x) and kernel[:2] == (3, 3) and 16 <= kernel[3] <= 64 and padding == _SAME


def convolve(x: Array, kernel: Array, bias: Array | None) -> Array:
    """A 3 x 3 convolution that keeps the size of the map, plus bias; all of one dtype."""
    out = _convolve(_input(x, kernel), kernel)
    return _apart(out if bias is None else out + jnp.tile(bias, 2))


def gradients(of_bias: bool, x: Array, kernel: Array, gradient: Array) -> tuple[Array, ...]:
    """Gradients of `convolve` by its arguments, from the one by its result."""
    pairs = _together(gradient)
    by_input, of_kernel = jax.vjp(_convolve, _input(x, kernel), kernel)[1](pairs)
    found = by_input.reshape(x.shape), of_kernel
    if not of_bias:
        return found
    sums = pairs.sum((0, 1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
    return *found, sums.reshape(2, -1).sum(0).astype(gradient.dtype)


def _together(x: Array) -> Array:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height, width // 2, 2 * channels)


def _apart(x: Array) -> Array:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height, 2 * width, channels // 2)


def _input(x: Array, kernel: Array) -> Array:
    """Photographs, of three channels, stay as they are: windows step by two columns there."""
    return x if kernel.shape[2] <= 4 else _together(x)


def _convolve(x: Array, kernel: Array) -> Array:
    """What `_input` gives -> pairs [B, H, W / 2, 2 O]."""
    maps_in, maps_out = kernel.shape[2:]
    if x.shape[3] == maps_in:
        both = [jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in (0, 1)]
        wide, strides = jnp.concatenate(both, -1), (1, 2)
    else:
        # Three pairs of input columns, of which each output column reads three columns.
        both = [jnp.pad(kernel, ((0, 0), (1 + i, 2 - i), (0, 0), (0, 0))) for i in (0, 1)]
        wide = jnp.stack(both, -2).reshape(3, 3, 2 * maps_in, 2 * maps_out)
        strides = (1, 1)
    return lax.conv_general_dilated(
        x, wide, strides, _SAME, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pool(x: Array) -> Array:
    """Maximum over windows of 2 x 2 without overlap: first of rows, then of columns."""
    return jnp.maximum(*_halves(_of_rows(_together(x))))


def pool_gradient(x: Array, gradient: Array) -> Array:
    """Each gradient goes to one pixel that attains the maximum: left before right, then top."""
    pairs = _together(x)
    rows, by_pairs = jax.vjp(_of_rows, pairs)
    left, right = _halves(rows)
    shares = jnp.where(left >= right, gradient, 0), jnp.where(left >= right, 0, gradient)
    return _apart(by_pairs(jnp.concatenate(shares, -1))[0])


def _halves(x: Array) -> tuple[Array, Array]:
    channels = x.shape[-1] // 2
    return x[..., :channels], x[..., channels:]


def _of_rows(x: Array) -> Array:
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, (1, 2, 1, 1), (1, 2, 1, 1), "VALID")
