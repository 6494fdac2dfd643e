"""Inner loops over pixels and random bits, compiled by Numba.

Those over pixels release the interpreter's lock, so that threads run them in parallel. Machine
code is cached beside this file or, if that directory cannot be written, in Numba's own cache.
"""

import numba
import numpy as np

_compiled = numba.njit(nogil=True, cache=True)
_short = numba.njit(cache=True)  # releasing the lock takes longer than these run

# Weights of the resampling are fixed-point numbers, 2^22 for 1, as in Pillow's Resample.c.
_BITS = 22
_HALF = np.uint64(1 << (_BITS - 1))
_LOW, _HIGH = np.uint64(_BITS), np.uint64(32 + _BITS)


@_compiled
def resample(
    source: np.ndarray,
    corner: tuple[int, int],
    start: tuple[float, float],
    size: tuple[float, float],
    scaled: tuple[int, int],
    offset: tuple[int, int],
    flip: bool,
    out: np.ndarray,
) -> None:
    """A window of an image that is rescaled by antialiased bilinear interpolation.

    Equal bit for bit to Pillow's `image.resize(scaled, Image.BILINEAR)`, then sliced and
    mirrored. (Pillow 13 resamples the columns of tall images before their rows; some pixels then
    differ by a grey level.) Only the pixels that the window needs are computed.

    Args:
      source: uint8 [h, w, 3], contiguous: the whole image, or the part that `needed` gives.
      corner: row and column of source[0, 0] in the image; negative if it lies before the image.
      start: row and column, 0 to 1, where the image begins in its first pixel; 0 if that is whole.
      size: height and width of the image in pixels; need not be integers.
      scaled: height and width of the rescaled image.
      offset: row and column of the window in the rescaled image.
      flip: mirror the window left to right.
      out: uint8 [rows, columns, 3], contiguous; the window is written to it.
    """
    rows, columns = out.shape[0], out.shape[1]
    top, y_count, y_weight = _weights(start[0], size[0], scaled[0], offset[0], rows)
    left, x_count, x_weight = _weights(start[1], size[1], scaled[1], offset[1], columns)
    first = top[0]
    lines = top[rows - 1] + y_count[rows - 1] - first
    width = source.shape[1] * 3
    flat = source.reshape(-1)

    # Along rows first: each output column is a weighted sum of a few input columns. Two rows are
    # summed at once, in the halves of 64-bit integers, since no sum reaches 2^31.
    narrow = np.empty((lines, columns * 3), np.uint8)
    packed = np.empty(width, np.uint64)
    sums = np.empty(columns * 3, np.uint64)
    half = _HALF | (_HALF << np.uint64(32))
    for line in range(0, lines, 2):
        other = min(line + 1, lines - 1)
        upper = flat[(first - corner[0] + line) * width :]
        lower = flat[(first - corner[0] + other) * width :]
        for i in range(width):
            packed[i] = np.uint64(upper[i]) | (np.uint64(lower[i]) << np.uint64(32))
        for x in range(columns):
            # Unsigned, because Numba checks the sign of signed indices.
            at = np.uint64((left[x] - corner[1]) * 3)
            weights = x_weight[x]
            red = half
            green = half
            blue = half
            for k in range(x_count[x]):
                weight = weights[np.uint64(k)]
                red += weight * packed[at]
                green += weight * packed[at + np.uint64(1)]
                blue += weight * packed[at + np.uint64(2)]
                at += np.uint64(3)
            to = np.uint64(((columns - 1 - x) if flip else x) * 3)
            sums[to] = red
            sums[to + np.uint64(1)] = green
            sums[to + np.uint64(2)] = blue
        to_upper, to_lower = narrow[line], narrow[other]
        for i in range(columns * 3):
            to_upper[i] = sums[i] >> _LOW
            to_lower[i] = sums[i] >> _HIGH

    total = np.empty(columns * 3, np.uint32)
    for y in range(rows):
        total[:] = 1 << (_BITS - 1)
        for k in range(y_count[y]):
            line_weight = np.uint32(y_weight[y, k])
            values = narrow[top[y] - first + k]
            for i in range(columns * 3):
                total[i] += line_weight * np.uint32(values[i])
        line_out = out[y].reshape(-1)
        for i in range(columns * 3):
            line_out[i] = total[i] >> np.uint32(_BITS)


@_short
def needed(start: float, size: float, scaled: int, offset: int, count: int) -> tuple[int, int]:
    """The first row of an image that a window of `resample` reads, and the one after the last.

    Args:
      start, size, scaled: as in `resample`, along the rows, or along the columns.
      offset, count: first row of the window in the rescaled image, and number of its rows.
    """
    first, _, _ = _weights(start, size, scaled, offset, 1)
    last, taps, _ = _weights(start, size, scaled, offset + count - 1, 1)
    return first[0], last[0] + taps[0]


@_compiled
def _weights(
    start: float, size: float, scaled: int, offset: int, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights of `count` outputs from `offset` on, along one axis.

    Returns:
      int64 [count], the first input of each output; int64 [count], the number of its inputs; and
      uint64 [count, taps], their weights, whose sum is 2^22 up to rounding.
    """
    ratio = size / scaled
    support = max(ratio, 1.0)
    limit = int(np.ceil(start + size))
    taps = int(np.ceil(support)) * 2 + 1
    first = np.empty(count, np.int64)
    counts = np.empty(count, np.int64)
    weights = np.empty((count, taps), np.uint64)
    shares = np.empty(taps, np.float64)
    for i in range(count):
        center = start + (offset + i + 0.5) * ratio
        low = max(int(center - support + 0.5), 0)
        high = min(int(center + support + 0.5), limit)
        total = 0.0
        for k in range(high - low):
            distance = abs((low + k - center + 0.5) * (1.0 / support))
            shares[k] = 1.0 - distance if distance < 1.0 else 0.0
            total += shares[k]
        for k in range(high - low):
            weights[i, k] = np.uint64(int(0.5 + shares[k] / total * (1 << _BITS)))
        first[i] = low
        counts[i] = high - low
    return first, counts, weights


@_compiled
def crop(source: np.ndarray, offset: tuple[int, int], flip: bool, out: np.ndarray) -> None:
    """A window of an image, zero beyond the image's edges.

    Args:
      source: uint8 [h, w, 3], contiguous.
      offset: row and column of the window; may be negative.
      flip: mirror the window left to right.
      out: uint8 [rows, columns, 3], contiguous; the window is written to it.
    """
    rows, columns = out.shape[0], out.shape[1]
    # Columns of the window that lie inside the image.
    low = min(max(-offset[1], 0), columns)
    high = max(min(source.shape[1] - offset[1], columns), low)
    three = np.uint64(3)
    for y in range(rows):
        line = y + offset[0]
        to = out[y].reshape(-1)
        if line < 0 or line >= source.shape[0]:
            to[:] = 0
            continue
        if low > 0 or high < columns:
            to[:] = 0
        values = source[line].reshape(-1)[(low + offset[1]) * 3 :]
        count = np.uint64(high - low)
        if flip:
            target = np.uint64((columns - 1 - low) * 3)
            at = np.uint64(0)
            for _ in range(count):
                to[target] = values[at]
                to[target + np.uint64(1)] = values[at + np.uint64(1)]
                to[target + np.uint64(2)] = values[at + np.uint64(2)]
                at += three
                target -= three
        else:
            inside = to[low * 3 :]
            for i in range(count * three):
                inside[i] = values[i]


@_compiled
def warp(
    source: np.ndarray,
    matrix: np.ndarray,
    center: tuple[float, float],
    lens: float,
    flip: bool,
    out: np.ndarray,
) -> None:
    """Distorts an image by a linear map about a point and the radial distortion of a lens.

    The pixel of the window at distance d = (y, x) from its middle is read, by bilinear
    interpolation, at center + (1 + lens |e|^2 / r^2) e of the source, where e = matrix d and r is
    half of the window's height. Beyond the edges of the source its outermost pixels are repeated.

    Args:
      source: uint8 [h, w, 3].
      matrix: float64 [2, 2], over (y, x).
      center: the position (y, x) of the window's middle in the source, in pixels; the middle of
        the first pixel is (.5, .5).
      lens: 0 for none, positive for a pincushion, negative for a barrel.
      flip: mirror the window left to right.
      out: uint8 [rows, columns, 3]; the window is written to it.
    """
    rows, columns = out.shape[0], out.shape[1]
    bottom, right = source.shape[0] - 1, source.shape[1] - 1
    radius = (rows / 2) ** 2
    for y in range(rows):
        for x in range(columns):
            dy, dx = y + 0.5 - rows / 2, x + 0.5 - columns / 2
            ey = matrix[0, 0] * dy + matrix[0, 1] * dx
            ex = matrix[1, 0] * dy + matrix[1, 1] * dx
            factor = 1.0 + lens * (ey * ey + ex * ex) / radius
            sy = min(max(center[0] + factor * ey - 0.5, 0.0), float(bottom))
            sx = min(max(center[1] + factor * ex - 0.5, 0.0), float(right))
            y0, x0 = int(sy), int(sx)
            y1, x1 = min(y0 + 1, bottom), min(x0 + 1, right)
            fy, fx = sy - y0, sx - x0
            to = columns - 1 - x if flip else x
            for c in range(3):
                upper = source[y0, x0, c] * (1 - fx) + source[y0, x1, c] * fx
                lower = source[y1, x0, c] * (1 - fx) + source[y1, x1, c] * fx
                out[y, to, c] = np.uint8(upper * (1 - fy) + lower * fy + 0.5)


@_short
def philox(seed: int, stream: int, counter: int, out: np.ndarray) -> None:
    """Raw output of the counter-based generator Philox4x64-10 (Salmon et al. 2011).

    Equal to the output of `np.random.Philox(key=[seed, stream])` from this counter on.

    Args:
      seed, stream: the key.
      counter: number of blocks of four numbers to skip, 0 or greater.
      out: uint64 [4 n], overwritten.
    """
    for block in range(len(out) // 4):
        c0 = np.uint64(counter + block + 1)
        c1, c2, c3 = np.uint64(0), np.uint64(0), np.uint64(0)
        k0, k1 = np.uint64(seed), np.uint64(stream)
        for _ in range(10):
            high0, low0 = _multiply(np.uint64(0xD2E7470EE14C6C93), c0)
            high1, low1 = _multiply(np.uint64(0xCA5A826395121157), c2)
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
            k0 += np.uint64(0x9E3779B97F4A7C15)
            k1 += np.uint64(0xBB67AE8584CAA73B)
        out[4 * block] = c0
        out[4 * block + 1] = c1
        out[4 * block + 2] = c2
        out[4 * block + 3] = c3


@_short
def _multiply(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """High and low half of the 128-bit product."""
    bits, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a1, a0, b1, b0 = a >> bits, a & mask, b >> bits, b & mask
    low = a0 * b0
    middle = a1 * b0 + (low >> bits)
    other = a0 * b1 + (middle & mask)
    return a1 * b1 + (middle >> bits) + (other >> bits), a * b
