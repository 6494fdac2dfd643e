"""Response normalisation across channels for TPUs: one pass over memory each way, in Pallas.

XLA takes two passes or more, writes sums over windows in float32, and is bound by computation.
These kernels read and write maps in their own dtype, once. They see maps as [pixels, channels,
batch]: with 128 images or a multiple, XLA keeps maps of fewer than 256 channels in that order
anyway, so that nothing is moved for them. A window's sum is a product with a banded matrix of
zeros and ones, of operands rounded to the dtype of the maps, added up in float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

# Pixels that a step of a kernel holds in the chip's fast memory.
_PIXELS = 8


def fit(shape: tuple[int, ...]) -> bool:
    """Whether the kernels take maps [B, H, W, C]: images fill the 128 lanes, channels the rows."""
    return len(shape) == 4 and shape[0] % 128 == 0 and shape[3] % 8 == 0


def normalized(
    size: int, k: float, alpha: float, beta: float, x: Array, *, interpret: bool = False
) -> Array:
    """`response.response_normalized`; `interpret` runs the kernel without a TPU, slowly."""
    constants = partial(_scaled, size, k, alpha, beta)

    def kernel(x_ref: Any, out_ref: Any) -> None:
        for pixel in range(_PIXELS):
            wide = x_ref[pixel].astype(jnp.float32)
            power, _ = constants(wide, x_ref.dtype)
            out_ref[pixel] = (wide * power).astype(out_ref.dtype)

    return _over_pixels(kernel, 1, interpret, x)


def gradient(
    size: int,
    k: float,
    alpha: float,
    beta: float,
    x: Array,
    of_result: Array,
    *,
    interpret: bool = False,
) -> Array:
    """`response.response_gradient`, by `x`."""
    constants, before = partial(_scaled, size, k, alpha, beta), size // 2

    def kernel(x_ref: Any, gradient_ref: Any, out_ref: Any) -> None:
        for pixel in range(_PIXELS):
            wide, dtype = x_ref[pixel].astype(jnp.float32), x_ref.dtype
            power, over_scale = constants(wide, dtype)
            scaled = gradient_ref[pixel].astype(jnp.float32) * power
            # Channel i feeds the windows of the channels i-after .. i+before.
            inner = _window_sum(scaled * wide * over_scale, size - 1 - before, before, dtype)
            by_input = scaled - (2.0 * alpha * beta) * wide * inner
            out_ref[pixel] = by_input.astype(out_ref.dtype)

    return _over_pixels(kernel, 2, interpret, x, of_result)


def _scaled(
    size: int, k: float, alpha: float, beta: float, wide: Array, dtype: Any
) -> tuple[Array, Array]:
    """scale^-beta and 1 / scale, of maps [channels, batch]."""
    before = size // 2
    scale = k + alpha * _window_sum(wide * wide, before, size - 1 - before, dtype)
    if beta == 0.75:
        root = lax.rsqrt(scale)
        return root * root * lax.rsqrt(root), root * root
    return jnp.exp(-beta * jnp.log(scale)), 1 / scale


def _window_sum(values: Array, before: int, after: int, dtype: Any) -> Array:
    """Sums of [channels, batch] over channels c-before .. c+after, clipped at both ends."""
    channels = len(values)
    row, column = (lax.broadcasted_iota(jnp.int32, (channels, channels), axis) for axis in (0, 1))
    band = ((column - row >= -before) & (column - row <= after)).astype(dtype)
    return jnp.dot(
        band,
        values.astype(dtype),
        # Products of bfloat16 are exact as they are.
        precision=lax.Precision.HIGHEST if dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def _over_pixels(
    kernel: Callable[..., None], products: int, interpret: bool, *maps: Array
) -> Array:
    """Runs a kernel over blocks of pixels of maps [B, H, W, C]; `products` counts its sums."""
    batch, height, width, channels = maps[0].shape
    seen = (height * width, channels, batch)
    block = pl.BlockSpec((_PIXELS, channels, batch), lambda step: (step, 0, 0))
    turned = [x.transpose(1, 2, 3, 0).reshape(seen) for x in maps]
    found = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(seen[0], _PIXELS),),
        in_specs=[block] * len(maps),
        out_specs=block,
        # Of the type of the maps, which says over which axes of a mesh they vary.
        out_shape=jax.eval_shape(lambda x: x, turned[0]),
        interpret=interpret,
        cost_estimate=pl.CostEstimate(
            flops=2 * products * channels * maps[0].size,
            bytes_accessed=(len(maps) + 1) * maps[0].nbytes,
            transcendentals=2 * maps[0].size,
        ),
    )(*turned)
    return found.reshape(height, width, channels, batch).transpose(3, 0, 1, 2)
