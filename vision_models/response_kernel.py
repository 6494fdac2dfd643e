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

# What is in the chip's fast memory at a time, 16 MB of a v5e: blocks of up to three maps, twice,
# for the next ones are fetched meanwhile; and of one pixel about ten float32 [channels, images].
_PIXELS = 16
_BLOCK_BYTES = 5 * 2**18
_PIXEL_SIZE = 2**16


def fit(shape: tuple[int, ...]) -> bool:
    """Whether the kernels take maps [B, H, W, C]: images fill the 128 lanes, channels the rows."""
    return len(shape) == 4 and shape[0] % 128 == 0 and shape[3] % 8 == 0 and shape[3] <= 256


def normalized(
    size: int, k: float, alpha: float, beta: float, x: Array, *, interpret: bool = False
) -> Array:
    """`response.response_normalized`; `interpret` runs the kernel without a TPU, slowly."""
    scaled = partial(_scaled, size, k, alpha, beta)

    def kernel(x_ref: Any, out_ref: Any) -> None:
        def of_pixel(pixel: Array, nothing: None) -> None:
            wide = x_ref[pixel].astype(jnp.float32)
            out_ref[pixel] = (wide * scaled(wide, x_ref.dtype)[0]).astype(out_ref.dtype)

        lax.fori_loop(0, len(x_ref), of_pixel, None)

    return _over_pixels(kernel, 1, interpret, x)[0]


def gradient(
    size: int,
    k: float,
    alpha: float,
    beta: float,
    rectified: bool,
    x: Array,
    of_result: Array,
    *,
    interpret: bool = False,
) -> tuple[Array, Array]:
    """`response.response_gradient` by `x`, and its sums over images and pixels, float32 [C].

    Args:
      size, k, alpha, beta: of the normalisation.
      rectified: `x` is the result of a ReLU, and the gradient is by what that was given.
      x, of_result: what was normalised, and the gradient by the result, [B, H, W, C].
      interpret: as for `normalized`.
    """
    scaled, before = partial(_scaled, size, k, alpha, beta), size // 2

    def kernel(x_ref: Any, gradient_ref: Any, out_ref: Any, sum_ref: Any) -> None:
        @pl.when(pl.program_id(1) == 0)
        def _() -> None:
            sum_ref[...] = jnp.zeros_like(sum_ref)

        def of_pixel(pixel: Array, total: Array) -> Array:
            wide, dtype = x_ref[pixel].astype(jnp.float32), x_ref.dtype
            power, over_scale = scaled(wide, dtype)
            by_power = gradient_ref[pixel].astype(jnp.float32) * power
            # Channel i feeds the windows of the channels i-after .. i+before.
            inner = _window_sum(by_power * wide * over_scale, size - 1 - before, before, dtype)
            by_input = by_power - (2.0 * alpha * beta) * wide * inner
            by_input = jnp.where(wide > 0, by_input, 0) if rectified else by_input
            out_ref[pixel] = by_input.astype(out_ref.dtype)
            return total + by_input

        sum_ref[...] = lax.fori_loop(0, len(x_ref), of_pixel, sum_ref[...])

    by_input, sums = _over_pixels(kernel, 2, interpret, x, of_result)
    return by_input, sums.sum(1)


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
) -> tuple[Array, ...]:
    """Runs a kernel over blocks of pixels of maps [B, H, W, C].

    Args:
      kernel: reads a block of each of the maps, and writes one of the result; where there are two
        maps, it also adds to sums [C, B], float32, which are the same for all blocks of pixels.
      products: how many sums over windows it takes.
      interpret: as for `normalized`.
      maps: one or two.
    """
    batch, height, width, channels = maps[0].shape
    seen = (height * width, channels, batch)
    turned = [x.transpose(1, 2, 3, 0).reshape(seen) for x in maps]
    pixels, images = _block(seen, maps[0].dtype)
    block = pl.BlockSpec((pixels, channels, images), lambda part, step: (step, 0, part))
    sums = pl.BlockSpec((channels, images), lambda part, step: (0, part))
    # Of the types of the maps, which say over which axes of a mesh they vary.
    types = jax.eval_shape(lambda x: (x, x[0].astype(jnp.float32)), turned[0])
    found = pl.pallas_call(
        kernel,
        grid=(batch // images, seen[0] // pixels),
        in_specs=[block] * len(maps),
        out_specs=(block, sums)[: len(maps)],
        out_shape=types[: len(maps)],
        interpret=interpret,
        cost_estimate=pl.CostEstimate(
            flops=2 * products * channels * maps[0].size,
            bytes_accessed=(len(maps) + 1) * maps[0].nbytes,
            transcendentals=2 * maps[0].size,
        ),
    )(*turned)
    by_pixel = found[0].reshape(height, width, channels, batch).transpose(3, 0, 1, 2)
    return by_pixel, *found[1:]


def _block(seen: tuple[int, int, int], dtype: Any) -> tuple[int, int]:
    """Pixels and images of a block of maps [pixels, channels, batch] that fit the fast memory."""
    pixels, channels, batch = seen
    images = max(
        n for n in range(128, batch + 1, 128) if batch % n == 0 and channels * n <= _PIXEL_SIZE
    )
    most = min(_PIXELS, _BLOCK_BYTES // (channels * images * jnp.dtype(dtype).itemsize))
    return max(n for n in range(1, most + 1) if pixels % n == 0), images
