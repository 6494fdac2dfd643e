"""Convolution, and the bias after it.

Arrays are channels-last, [batch, height, width, channels]; kernels are [height, width, in,
out]. XLA's own operation does the work. On CPUs it copies the windows side by side and takes a
matrix product, which is slow with few maps: each copy then yields few numbers.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from vision_models import pairs
from vision_models.layers import channel_sums
from vision_models.pooling import Padding

# [batch, height, width, channels] -> fewer pixels.
Pooling = Callable[[Array], Array]
# (maps, bias): a normalisation of the ReLU of their sum.
Normalization = Callable[[Array, Array | None], Array]


def convolve(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
    pool: Pooling | None = None,
) -> Array:
    """Convolution plus bias, in the dtype of `x`; only reverse-mode differentiation works.

    On CPUs a value in `x` that is not finite may affect one column more than the windows that
    contain it. If differentiated inside `jax.shard_map`, `x` has to vary over every mesh axis
    that `kernel` varies over.

    Args:
      x: [batch, height, width, in].
      kernel: [kernel height, kernel width, in, out].
      bias: [out]; None for none.
      stride: pixels between windows, the same in both directions.
      padding: rows and columns of zeros, ((top, bottom), (left, right)).
      pool: applied to the maps before the bias.

    Returns:
      [batch, height', width', out], or what `pool` makes of it.
    """
    if pool is not None:
        out = pool(convolve(x, kernel, stride=stride, padding=padding))
        return out if bias is None else add_bias(out, bias.astype(x.dtype))
    kernel = kernel.astype(x.dtype)
    if stride == 1 and pairs.fit(x.shape, kernel.shape, padding):
        return _of_large_maps(x, kernel, None if bias is None else bias.astype(x.dtype), padding)
    if stride == 1:
        out = _stride_one(x, kernel, padding)
    else:
        out = _convolved(x, kernel, padding, (stride, stride))
    return out if bias is None else add_bias(out, bias.astype(x.dtype))


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """[B, H, W, C] + [C]; its gradient, reverse mode only, uses `layers.channel_sums`."""
    return x + bias


add_bias.defvjp(
    lambda x, bias: (x + bias, None),
    lambda _, gradient: (gradient, channel_sums(gradient[None])[0]),
)


def convolve_by_each(
    x: Array,
    kernels: Sequence[Array],
    biases: Sequence[Array | None],
    *,
    stride: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
    pool: Pooling | None = None,
) -> list[Array]:
    """`convolve` of the same maps by several kernels of one window: [B, H', W', out] for each.

    On TPUs the gradients of all are one convolution, which fills more of the 128 maps that are
    computed at a time.
    """
    if len(kernels) == 1:
        return [convolve(x, kernels[0], biases[0], stride=stride, padding=padding, pool=pool)]
    maps = _by_each(x, [kernel.astype(x.dtype) for kernel in kernels], padding, stride)
    maps = maps if pool is None else [pool(of_kernel) for of_kernel in maps]
    return [
        out if bias is None else add_bias(out, bias.astype(x.dtype))
        for out, bias in zip(maps, biases, strict=True)
    ]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_each(x: Array, kernels: list[Array], padding: Padding, stride: int) -> list[Array]:
    return [convolve(x, kernel, stride=stride, padding=padding) for kernel in kernels]


def _by_each_forward(
    x: Array, kernels: list[Array], padding: Padding, stride: int
) -> tuple[list[Array], tuple[Array, list[Array]]]:
    return _by_each(x, kernels, padding, stride), (x, kernels)


def _by_each_backward(
    padding: Padding, stride: int, kept: tuple[Array, list[Array]], gradients: list[Array]
) -> tuple[Array, list[Array]]:
    def apart(x: Array, kernels: list[Array], gradients: list[Array]) -> tuple[Array, list[Array]]:
        each = [
            jax.vjp(partial(convolve, stride=stride, padding=padding), x, kernel)[1](gradient)
            for kernel, gradient in zip(kernels, gradients, strict=True)
        ]
        return sum((by for by, _ in each[1:]), each[0][0]), [of_kernel for _, of_kernel in each]

    together = partial(gradients_together, padding, stride)
    return lax.platform_dependent(*kept, gradients, tpu=together, default=apart)


def gradients_together(
    padding: Padding, stride: int, x: Array, kernels: list[Array], gradients: list[Array]
) -> tuple[Array, list[Array]]:
    """Gradients by the maps and by every kernel, from those by the results of each kernel."""
    by_input, of_kernels = jax.vjp(
        lambda x, kernel: _convolved(x, kernel, padding, (stride, stride)),
        x,
        jnp.concatenate(kernels, -1),
    )[1](jnp.concatenate(gradients, -1))
    ends = itertools.accumulate(kernel.shape[-1] for kernel in kernels)
    return by_input, jnp.split(of_kernels, list(ends)[:-1], -1)


_by_each.defvjp(_by_each_forward, _by_each_backward)


# Large maps of few channels: TPUs take columns in pairs, and the bias with them.
@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _of_large_maps(x: Array, kernel: Array, bias: Array | None, padding: Padding) -> Array:
    def elsewhere(x: Array, kernel: Array, bias: Array | None) -> Array:
        out = _stride_one(x, kernel, padding)
        return out if bias is None else add_bias(out, bias)

    return lax.platform_dependent(x, kernel, bias, tpu=pairs.convolve, default=elsewhere)


def _of_large_maps_forward(
    x: Array, kernel: Array, bias: Array | None, padding: Padding
) -> tuple[Array, tuple[Array, Array, Array | None]]:
    return _of_large_maps(x, kernel, bias, padding), (x, kernel, bias)


def _of_large_maps_backward(
    padding: Padding, kept: tuple[Array, Array, Array | None], gradient: Array
) -> tuple[Array, Array, Array | None]:
    x, kernel, bias = kept

    def elsewhere(x: Array, kernel: Array, gradient: Array) -> tuple[Array, ...]:
        by_both = _backward(padding, (x, kernel), gradient)
        return by_both if bias is None else (*by_both, channel_sums(gradient[None])[0])

    on_tpu = partial(pairs.gradients, bias is not None)
    found = lax.platform_dependent(x, kernel, gradient, tpu=on_tpu, default=elsewhere)
    return found if bias is not None else (*found, None)


_of_large_maps.defvjp(_of_large_maps_forward, _of_large_maps_backward)


def _convolved(x: Array, kernel: Array, padding: Padding, strides: tuple[int, int]) -> Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# The gradient by the input is itself a convolution. It is written as one, so that it, too, takes
# the form that is fast for its number of maps.
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _stride_one(x: Array, kernel: Array, padding: Padding) -> Array:
    """A convolution of stride 1."""

    def on_cpu(x: Array, kernel: Array) -> Array:
        _, window, maps_in, maps_out = kernel.shape
        columns = x.shape[2] + sum(padding[1]) - window + 1
        # The form is faster below these numbers of maps: AVX-512, float32 (docs/speed.md).
        if columns % 2 == 0 and window > 1 and (maps_in <= 4 or maps_out <= 16):
            return _by_two_columns(x, kernel, padding)
        return _convolved(x, kernel, padding, (1, 1))

    return lax.platform_dependent(
        x, kernel, cpu=on_cpu, default=lambda x, kernel: _convolved(x, kernel, padding, (1, 1))
    )


def _by_two_columns(x: Array, kernel: Array, padding: Padding) -> Array:
    """Computes two neighbouring outputs of a row at a time, from windows one column wider.

    The kernel appears twice, padded with zeros to lie one column apart: half as many windows
    yield twice as many numbers each. The number of output columns has to be even.
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
