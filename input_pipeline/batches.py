"""tf.data pipelines: examples in, batches of NumPy arrays out."""

import atexit
import contextlib
import dataclasses
import functools
import os
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from input_pipeline import augment, order
from input_pipeline.augment import Crops
from input_pipeline.decode import UnreadableError
from input_pipeline.errors import DataError
from input_pipeline.report import Report, silent
from input_pipeline.sources import Examples

Batch = dict[str, np.ndarray]

# So many unreadable images one after another are no accident.
_TOO_MANY = 100
# Closed before the interpreter goes: TensorFlow's threads would wait for its lock for ever.
_streams: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
    for stream in list(_streams):
        with contextlib.suppress(ValueError):  # it runs, in another thread
            stream.close()


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
      exact: without DCT scaling of large JPEGs; see `decode.window`.
      unreadable: what becomes of an image of which nothing can be made. `leave_out`: the
        example after it stands in for it in training, evaluation goes without it; or `fail`.
      report: called for every image that is repaired or left out.
      threads: that decode; None for as many as there are cores.
    """

    exact: bool = False
    unreadable: str = "leave_out"
    report: Report = silent
    threads: int | None = None

    @property
    def parallel(self) -> int:
        """The number of threads."""
        if self.threads is not None:
            return self.threads
        try:
            return len(os.sched_getaffinity(0))
        except AttributeError:  # not Linux
            return os.cpu_count() or 1


def training_batches(
    examples: Examples,
    crops: Crops,
    *,
    seed: int,
    batch_size: int,
    colours: Callable[[np.ndarray, int], dict[str, np.ndarray]],
    reading: Reading,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Generator[Batch, None, None]:
    """The endless training stream from a step on, a pure function of (seed, step).

    The batch at step s holds positions s * batch_size to (s + 1) * batch_size - 1 of
    the stream of `order.examples_at`; starting anywhere costs the same.

    Args:
      examples: the training split.
      crops: how crops are taken.
      seed: seed of order and augmentation.
      batch_size: examples in a batch over all processes.
      colours: (uniform draws [b, DRAWS], step) -> arrays [b, ...] by name.
      reading: how images are read.
      start: the first step.
      share: (number, shares): this process gets rows number * batch_size / shares onwards of
        every batch, batch_size / shares of them.

    Yields:
      `image` uint8 [b, crop, crop, 3], `label` int32 [b], `index` int64 [b], `crop_offset`
      int32 [b, 2] (y, x), `flip` bool [b], and the arrays of `colours`, b the share of this
      process. Images are cropped and mirrored already.

    Raises:
      DataError: an image cannot be read and must not be left out, or a hundred one after
        another; the message names it.
    """
    number, shares = share
    size = batch_size // shares

    def at(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps, rows = np.divmod(positions, size)
        stream = steps * batch_size + number * size + rows
        indices, epochs = order.examples_at(seed, stream, examples.count)
        return indices, order.uniform_draws(seed, epochs, indices, augment.DRAWS)

    def fill(positions: np.ndarray, out: Batch) -> None:
        indices, uniform = at(positions)
        for row, index in enumerate(indices):
            for _ in range(_TOO_MANY):
                taken = _take(examples, index, crops, uniform[row], out["image"][row], reading)
                if taken is not None:
                    break
                index = (index + 1) % examples.count
            else:
                raise DataError(
                    f"{examples.name(int(index))} and the {_TOO_MANY - 1} images before it "
                    "cannot be read; is this the right dataset?"
                )
            out["index"][row] = index
            out["label"][row], out["crop_offset"][row], out["flip"][row] = taken

    side = crops.crop
    specs = {
        "image": tf.TensorSpec([size, side, side, 3], tf.uint8),
        "label": tf.TensorSpec([size], tf.int32),
        "index": tf.TensorSpec([size], tf.int64),
        "crop_offset": tf.TensorSpec([size, 2], tf.int32),
        "flip": tf.TensorSpec([size], tf.bool),
    }
    batches = _parallel(fill, specs, reading.parallel, start=start)
    for step, batch in enumerate(batches, start):
        _, uniform = at(step * size + np.arange(size))
        yield batch | colours(uniform, step)


def evaluation_batches(
    examples: Examples,
    crops: Crops,
    *,
    batch_size: int,
    reading: Reading,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Generator[Batch, None, None]:
    """Every example once, in order; the last batch is padded and the padding masked.

    Args:
      examples: the split.
      crops: of the kind `center`, as `augment.central_square` makes them; protocols crop
        further on the device.
      batch_size: examples in a batch over all processes.
      reading: how images are read.
      start: the first batch; those before it are not read.
      share: as in `training_batches`.

    Yields:
      `image` uint8 [b, crop, crop, 3], `label` int32 [b], `index` int64 [b] of the example
      in the split, `mask` float32 [b], b the share of this process. For padding and for what
      is left out the mask is 0 and the index -1; for all others the mask is 1.

    Raises:
      DataError: an image cannot be read and must not be left out, or none of them can; the
        message names it.
    """
    number, shares = share
    size = batch_size // shares
    middle = np.full(augment.DRAWS, 0.5)

    def fill(positions: np.ndarray, out: Batch) -> None:
        steps, rows = np.divmod(positions, size)
        out["label"][:] = 0
        out["mask"][:] = 0
        out["index"][:] = -1
        for row, index in enumerate(steps * batch_size + number * size + rows):
            taken = None
            if index < examples.count:
                taken = _take(examples, index, crops, middle, out["image"][row], reading)
            if taken is None:
                out["image"][row] = 0
            else:
                out["label"][row], out["mask"][row], out["index"][row] = taken[0], 1, index

    specs = {
        "image": tf.TensorSpec([size, crops.crop, crops.crop, 3], tf.uint8),
        "label": tf.TensorSpec([size], tf.int32),
        "index": tf.TensorSpec([size], tf.int64),
        "mask": tf.TensorSpec([size], tf.float32),
    }
    steps, read = -(-examples.count // batch_size), 0
    for batch in _parallel(fill, specs, reading.parallel, start=start, stop=max(start, steps)):
        read += int(batch["mask"].sum())
        yield batch
    if not read and not start and shares == 1:
        raise DataError(
            f"none of the {examples.count} images, {examples.name(0)} the first, can be read"
        )


def _take(
    examples: Examples,
    index: np.int64,
    crops: Crops,
    uniform: np.ndarray,
    out: np.ndarray,
    reading: Reading,
) -> tuple[int, tuple[int, int], bool] | None:
    """Writes an example's crop to `out`; gives label, offset and flip, None if it is left out."""
    content, label = examples.read(int(index))

    def repaired(reason: str) -> None:
        reading.report(examples.name(int(index)), "repaired", reason)

    try:
        offset, flip = augment.take(
            content, crops, uniform, out, exact=reading.exact, repaired=repaired
        )
    except UnreadableError as error:
        leave_out(examples, int(index), error, reading)
        return None
    return label, offset, flip


def leave_out(examples: Examples, index: int, error: UnreadableError, reading: Reading) -> None:
    """Notes that an example is left out.

    Raises:
      DataError: it must not be.
    """
    name = examples.name(index)
    if reading.unreadable == "fail":
        raise DataError(
            f"{name}: {error}; repair or remove it, or --config.data.unreadable=leave_out"
        ) from error
    reading.report(name, "left out", str(error))


def _parallel(
    fill: Callable[[np.ndarray, Batch], None],
    specs: dict[str, tf.TensorSpec],
    threads: int,
    *,
    start: int = 0,
    stop: int | None = None,
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
    """
    rows = next(iter(specs.values())).shape[0]
    length = max(1, min(8, rows // (4 * threads)))
    pieces = [slice(at, at + length) for at in range(0, rows, length)]
    failures: list[Exception] = []

    def make(pool: ThreadPoolExecutor, batch: np.int64) -> list[np.ndarray]:
        arrays = {name: _aligned(spec) for name, spec in specs.items()}
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


def _aligned(spec: tf.TensorSpec) -> np.ndarray:
    """An empty array whose memory TensorFlow takes over as it is, instead of copying it."""
    dtype = spec.dtype.as_numpy_dtype
    size = spec.shape.num_elements() * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size].view(dtype).reshape(spec.shape)
