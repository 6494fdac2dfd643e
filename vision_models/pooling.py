"""Pooling: maximum, average or norm over windows of a map.

Arrays are channels-last, [batch, height, width, channels].

XLA has one operation for windows and one for the gradient of their maximum. They are fast on TPUs;
on CPUs they are slow (docs/speed.md), and on GPUs they widen maps to float32, with indices of four
bytes. Elsewhere than on TPUs a pool is therefore written as operations on strided slices, one slice
for each place in the window, which XLA fuses into a single pass over memory. On CPUs the
windows inside the map are one block; those that the borders clip alike are others. On GPUs every
block would be a kernel of its own, and the map is padded instead.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from vision_models import pairs
from vision_models.layers import widened

POOLS = ("max", "average", "padded_average", "sum", "l2")
Padding = tuple[tuple[int, int], tuple[int, int]]  # pixels ((top, bottom), (left, right))


def pooled_size(
    size: int, window: int, stride: int, before: int = 0, after: int = 0, ceil: bool = False
) -> int:
    """Number of outputs of a convolution or pool along one axis: (W - F + 2P) / S + 1.

    Args:
      size: pixels W.
      window, stride: F and S.
      before, after: pixels of padding at either end, 2P together.
      ceil: round up rather than down, as cuda-convnet and Caffe do in pools; but drop a
        last window that would start beyond the pixels and the padding before them.

    Returns:
      The number, at least 0.
    """
    span = size - window + before + after
    if span < 0:
        return 1 if ceil and size + before > 0 else 0
    if not ceil:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= size + before else out


def pool(
    x: Array,
    kind: str,
    *,
    window: int,
    stride: int,
    padding: Padding = ((0, 0), (0, 0)),
    ceil: bool = False,
) -> Array:
    """Maximum, average or L2 norm over window x window neighbourhoods.

    A window larger than the stride overlaps (Krizhevsky et al. 2012, section 3.4).
    Windows are clipped to the image: padding is never the maximum, and an average is over
    the pixels inside only, as in cuda-convnet. Sums are taken in float32 at least. The gradient
    of a maximum goes to the first pixel, in reading order, that attains it; on TPUs, where a map
    is taken by pairs of columns (`pairs.fit_map`), to the left one, then to the upper one.

    Args:
      x: [batch, height, width, channels].
      kind: `max`; `average`; `padded_average`, over the whole window, where padding counts as
        zeros (PyTorch's); `sum`; or `l2`, the root of the sum of squares.
      window, stride: in pixels, the same in both directions.
      padding: ((top, bottom), (left, right)).
      ceil: see `pooled_size`.

    Returns:
      [batch, `pooled_size` of height, of width, channels], of the dtype of `x`.

    Raises:
      ValueError: maps smaller than a window; or padding as wide as a window, which would then
        see padding only.
    """
    if max(itertools.chain(*padding)) >= window:
        raise ValueError(f"padding {padding} of windows of {window}: at most {window - 1}")
    sizes = [
        pooled_size(size, window, stride, before, after, ceil)
        for size, (before, after) in zip(x.shape[1:3], padding, strict=True)
    ]
    if min(sizes) < 1:
        raise ValueError(f"maps of {x.shape[1]} x {x.shape[2]} in windows of {window}: too small")
    pads = tuple(
        (before, max((out - 1) * stride + window - size - before, 0))
        for size, out, (before, _) in zip(x.shape[1:3], sizes, padding, strict=True)
    )
    if kind == "max":
        return _over_windows(x, "max", window, stride, pads)
    wide = widened(x)
    if kind == "l2":
        squares = _over_windows(wide * wide, "sum", window, stride, pads)
        return jnp.sqrt(squares + np.array(1e-12, wide.dtype)).astype(x.dtype)
    if kind != "average":
        sums = _over_windows(wide, "sum", window, stride, pads)
        return (sums if kind == "sum" else sums / window**2).astype(x.dtype)
    covered = [
        _covered(size, window, stride, before, after)
        for size, (before, after) in zip(x.shape[1:3], pads, strict=True)
    ]
    counts = np.outer(*covered)[None, :, :, None]
    sums = _over_windows(wide, "sum", window, stride, pads)
    return (sums / counts.astype(wide.dtype)).astype(x.dtype)


def _covered(size: int, window: int, stride: int, before: int, after: int) -> np.ndarray:
    """Number of pixels inside the map that each window along an axis covers, at least 1."""
    starts = np.arange((size + before + after - window) // stride + 1) * stride - before
    return np.maximum(np.minimum(starts + window, size) - np.maximum(starts, 0), 1)


def adaptive_average_pool(x: Array, size: int) -> Array:
    """Averages over size x size windows that divide the image: PyTorch's adaptive pool.

    Window i covers the pixels floor(i H / size) to ceil((i + 1) H / size) - 1.

    Args:
      x: [batch, H, W, channels].
      size: number of windows along each side.

    Returns:
      [batch, size, size, channels].
    """

    def cuts(length: int) -> list[slice]:
        return [slice(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]

    rows = [x[:, rows] for rows in cuts(x.shape[1])]
    return jnp.stack(
        [jnp.stack([r[:, :, c].mean((1, 2)) for c in cuts(x.shape[2])], 1) for r in rows], 1
    )


# The value of padding, and the reduction.
_REDUCTIONS: dict[str, tuple[float, Callable[[Any, Any], Any]]] = {
    "max": (-np.inf, lax.max),
    "sum": (0.0, lax.add),
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _over_windows(x: Array, kind: str, window: int, stride: int, pads: Padding) -> Array:
    """`max` or `sum` over windows, [B, H, W, C] -> [B, H', W', C]; `pads` fit the windows."""
    on_gpu = functools.partial(over_padded_windows, kind, window, stride, pads)
    paired = _in_pairs(x, kind, window, stride, pads)
    return lax.platform_dependent(
        x,
        tpu=pairs.pool if paired else lambda x: _reduced(x, kind, window, stride, pads),
        cuda=on_gpu,
        rocm=on_gpu,
        default=lambda x: _on_slices(x, window, stride, pads, functools.partial(_combined, kind)),
    )


def _in_pairs(x: Array, kind: str, window: int, stride: int, pads: Padding) -> bool:
    """Whether TPUs take this pool on pairs of columns."""
    plain = kind == "max" and window == stride == 2 and not np.any(pads)
    return plain and x.shape[1] % 2 == 0 and pairs.fit_map(x.shape)


def _over_windows_forward(
    x: Array, kind: str, window: int, stride: int, pads: Padding
) -> tuple[Array, Array]:
    return _over_windows(x, kind, window, stride, pads), x


def _over_windows_backward(
    kind: str, window: int, stride: int, pads: Padding, x: Array, gradient: Array
) -> tuple[Array]:
    def on_slices(x: Array, gradient: Array) -> Array:
        combine = functools.partial(_first_maximum, dtype=_dtype_of_places(window))
        first = _on_slices(x, window, stride, pads, combine) if kind == "max" else None
        return _spread(gradient, first, x.shape[1:3], window, stride, pads)

    def reduced(x: Array, gradient: Array) -> Array:
        return jax.vjp(lambda x: _reduced(x, kind, window, stride, pads), x)[1](gradient)[0]

    on_gpu = functools.partial(padded_windows_gradient, kind, window, stride, pads)
    on_tpu = pairs.pool_gradient if _in_pairs(x, kind, window, stride, pads) else reduced
    by_input = lax.platform_dependent(
        x, gradient, tpu=on_tpu, cuda=on_gpu, rocm=on_gpu, default=on_slices
    )
    return (by_input,)


_over_windows.defvjp(_over_windows_forward, _over_windows_backward)


def _reduced(x: Array, kind: str, window: int, stride: int, pads: Padding) -> Array:
    """`_over_windows` by XLA's own operation."""
    initial, reduce = _REDUCTIONS[kind]
    return lax.reduce_window(
        x,
        np.array(initial, x.dtype),
        reduce,
        (1, window, window, 1),
        (1, stride, stride, 1),
        ((0, 0), *pads, (0, 0)),
    )


def _on_slices(
    x: Array, window: int, stride: int, pads: Padding, combine: Callable[[dict[int, Array]], Array]
) -> Array:
    """Applies `combine` to the pixels of every window: [B, H, W, C] -> [B, H', W', C].

    Windows that the borders clip alike are a block. `combine` gets a block's pixels by their
    place in the window, numbered in reading order, each [B, rows, columns, C].
    """
    rows = []
    for top, height, down in _blocks(x.shape[1], window, stride, pads[0]):
        row = []
        for left, width, along in _blocks(x.shape[2], window, stride, pads[1]):
            places = {
                i * window + j: x[
                    :,
                    top + i : top + i + (height - 1) * stride + 1 : stride,
                    left + j : left + j + (width - 1) * stride + 1 : stride,
                ]
                for i in down
                for j in along
            }
            row.append(combine(places))
        rows.append(jnp.concatenate(row, 2))
    return jnp.concatenate(rows, 1)


def over_padded_windows(kind: str, window: int, stride: int, pads: Padding, x: Array) -> Array:
    """`_over_windows` on GPUs."""
    padded = _padded(x, kind, pads)
    return _on_slices(padded, window, stride, _NONE, functools.partial(_combined, kind))


def padded_windows_gradient(
    kind: str, window: int, stride: int, pads: Padding, x: Array, gradient: Array
) -> Array:
    """The gradient of `over_padded_windows` by `x`."""
    first = None
    if kind == "max":
        combine = functools.partial(_first_maximum, dtype=_dtype_of_places(window))
        first = _on_slices(_padded(x, kind, pads), window, stride, _NONE, combine)
    return _spread(gradient, first, x.shape[1:3], window, stride, pads)


_NONE: Padding = ((0, 0), (0, 0))


def _padded(x: Array, kind: str, pads: Padding) -> Array:
    outside = np.array(_REDUCTIONS[kind][0], x.dtype)
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=outside)


def _dtype_of_places(window: int) -> np.dtype:
    """The smallest integers that number every place in a window, and one for none."""
    return np.min_scalar_type(window * window)


def _blocks(
    size: int, window: int, stride: int, pads: tuple[int, int]
) -> list[tuple[int, int, range]]:
    """Groups neighbouring windows along an axis that the border clips to the same places.

    Returns:
      For each block: the coordinate of its first window, which is below 0 if that starts
      outside the map; the number of windows; the places that lie inside the map.
    """
    before, after = pads
    count = (size + before + after - window) // stride + 1
    starts = [number * stride - before for number in range(count)]
    blocks = []
    for (first, end), block in itertools.groupby(
        starts, lambda start: (max(-start, 0), min(window, size - start))
    ):
        members = list(block)
        blocks.append((members[0], len(members), range(first, end)))
    return blocks


def _combined(kind: str, places: dict[int, Array]) -> Array:
    return functools.reduce(_REDUCTIONS[kind][1], places.values())


def _first_maximum(places: dict[int, Array], dtype: np.dtype) -> Array:
    """The first place of the maximum, as integers of type `dtype`."""
    (first, largest), *others = places.items()
    at = jnp.full(largest.shape, first, dtype)
    for place, pixels in others:
        at = jnp.where(pixels > largest, np.array(place, dtype), at)
        largest = lax.max(largest, pixels)
    return at


def _spread(
    values: Array,
    places: Array | None,
    size: tuple[int, ...],
    window: int,
    stride: int,
    pads: Padding,
) -> Array:
    """Adds each window's value to one pixel of the window, or to all of them.

    Args:
      values: [B, H', W', C].
      places: the place of that pixel in its window, [B, H', W', C]; None for all pixels.
      size: (H, W) of the map.
      window, stride, pads: of the pool.

    Returns:
      [B, H, W, C].
    """
    # Pixels whose coordinates (in the padded map) are congruent modulo the stride lie at the
    # same places of their windows: one plane for each pair of remainders.
    reach = (window - 1) // stride  # number of earlier windows that still cover a pixel
    planes = [-(-(n + before) // stride) for n, (before, _) in zip(size, pads, strict=True)]
    around = [(reach, max(n - m, 0)) for n, m in zip(planes, values.shape[1:3], strict=True)]
    widths = ((0, 0), *around, (0, 0))
    values = jnp.pad(values, widths)
    if places is not None:
        places = jnp.pad(places, widths, constant_values=window * window)

    def plane(row: int, column: int) -> Array:
        total = jnp.zeros((), values.dtype)
        for i in range(row, window, stride):
            for j in range(column, window, stride):
                top, left = reach - i // stride, reach - j // stride
                at = slice(None), slice(top, top + planes[0]), slice(left, left + planes[1])
                share = values[at]
                if places is not None:
                    share = jnp.where(places[at] == i * window + j, share, 0)
                total = total + share
        return jnp.broadcast_to(total, (len(values), *planes, values.shape[-1]))

    if stride == 1:
        whole = plane(0, 0)
    else:
        rows = [
            jnp.stack([plane(row, column) for column in range(stride)], 3) for row in range(stride)
        ]
        whole = jnp.stack(rows, 2).reshape(
            len(values), planes[0] * stride, planes[1] * stride, values.shape[-1]
        )
    (top, _), (left, _) = pads
    return whole[:, top : top + size[0], left : left + size[1]]
