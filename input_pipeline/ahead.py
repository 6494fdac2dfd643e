"""Batches made ahead by threads, through tf.data."""

import atexit
import contextlib
import functools
import math
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DataError

Batch = dict[str, np.ndarray]

# Closed before the interpreter goes: TensorFlow's threads would wait for its lock for ever.
_streams: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
    for stream in list(_streams):
        with contextlib.suppress(ValueError):  # it runs, in another thread
            stream.close()


def batches(
    fill: Callable[[np.ndarray, Batch], None],
    specs: dict[str, tf.TensorSpec],
    threads: int,
    *,
    start: int = 0,
    stop: int | None = None,
    shape_of: Callable[[int], tuple[int, int]] | None = None,
) -> Generator[Batch, None, None]:
    """Batches in order, a few of them made ahead, the rows of each by several threads.

    Rows are written straight into their batch: passing images one by one through tf.data
    costs two copies of each and, with a Python function, .3 ms more.

    Args:
      fill: (positions int64 [n], arrays [n, ...] by name) writes these rows.
      specs: of the arrays of a batch, by name; the first axis is `rows`, the same for all,
        and batch b holds positions b * rows to (b + 1) * rows - 1.
      threads: that call `fill` side by side.
      start, stop: the first batch, and the one after the last; None for no end.
      shape_of: number of a batch -> height and width of its images, None in `specs`.
    """
    rows = next(iter(specs.values())).shape[0]
    length = max(1, min(8, rows // (4 * threads)))
    pieces = [slice(at, at + length) for at in range(0, rows, length)]
    failures: list[Exception] = []

    def make(pool: ThreadPoolExecutor, batch: np.int64) -> list[np.ndarray]:
        shape = None if shape_of is None else shape_of(int(batch))
        arrays = {name: _aligned(spec, shape) for name, spec in specs.items()}
        positions = int(batch) * rows + np.arange(rows)

        def fill_piece(piece: slice) -> None:
            fill(positions[piece], {name: array[piece] for name, array in arrays.items()})

        try:
            list(pool.map(fill_piece, pieces))
        except Exception as error:
            failures.append(error)  # tf.data would pass on its text alone
            raise
        return list(arrays.values())

    def run() -> Generator[Batch, None, None]:
        with ThreadPoolExecutor(threads, "images") as pool:

            def traced(batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
                types = [spec.dtype for spec in specs.values()]
                made = functools.partial(make, pool)
                columns = tf.numpy_function(made, [batch], types, stateful=False)
                for column, spec in zip(columns, specs.values(), strict=True):
                    column.set_shape(spec.shape)
                return tuple(columns)

            end = np.iinfo(np.int64).max if stop is None else stop
            # Two at a time, so that no thread waits for the last rows of a batch.
            pipeline = tf.data.Dataset.range(start, end).map(traced, 2, deterministic=True)
            options = tf.data.Options()
            options.threading.private_threadpool_size = 3
            options.autotune.enabled = False
            try:
                for columns in pipeline.prefetch(2).with_options(options).as_numpy_iterator():
                    yield dict(zip(specs, columns, strict=True))
            except tf.errors.OpError as error:
                if failures:
                    raise failures[0] from error
                message = f"the images could not be prepared: {error.message}"
                raise DataError(message) from error

    stream = run()
    _streams.add(stream)
    return stream


def _aligned(spec: tf.TensorSpec, shape: tuple[int, int] | None = None) -> np.ndarray:
    """An empty array whose memory TensorFlow takes over as it is, instead of copying it.

    Args:
      spec: of the array.
      shape: its second and third size where the spec leaves them open.
    """
    dtype, sizes = spec.dtype.as_numpy_dtype, list(spec.shape)
    if shape is not None and None in sizes:
        sizes[1:3] = shape
    size = math.prod(sizes) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size].view(dtype).reshape(sizes)
