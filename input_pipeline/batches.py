"""tf.data pipelines: examples in, batches of NumPy arrays out."""

from collections.abc import Callable, Generator

import numpy as np
import tensorflow as tf

from input_pipeline import order, preprocess
from input_pipeline.errors import DataError
from input_pipeline.sources import Examples

Batch = dict[str, np.ndarray]


def training_batches(
    examples: Examples,
    *,
    seed: int,
    batch_size: int,
    resize: int,
    pad: int = 0,
    crop: int,
    augment: Callable[[np.ndarray, int], dict[str, np.ndarray]],
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch, None, None]:
    """The endless training stream from a step on, a pure function of (seed, step).

    The batch at step s holds positions s * batch_size to (s + 1) * batch_size - 1 of
    the stream of `order.examples_at`; starting anywhere costs the same.

    Args:
      examples: the training split.
      seed: seed of order and augmentation.
      batch_size: examples in a batch over all processes.
      resize: pixels of the square that the image becomes.
      pad: zeros around it, in pixels on each side; crops are taken from it all.
      crop: pixels of the crop.
      augment: (uniform draws [B, DRAWS], step) -> arrays [B, ...] by name, with
        `crop_offset` and `flip` among them.
      start_step: the first step.
      process_index, process_count: this process gets its share of every batch, rows
        process_index * batch_size / process_count onwards.

    Yields:
      `image` uint8 [b, crop, crop, 3], `label` int32 [b], `index` int64 [b] and the
      arrays of `augment`, b the share of this process.

    Raises:
      DataError: an image cannot be decoded; the message names it.
    """
    share = batch_size // process_count

    def at(step: int) -> tuple[np.ndarray, np.ndarray]:
        positions = step * batch_size + process_index * share + np.arange(share)
        return order.examples_at(seed, positions, examples.count)

    def find(step: np.int64) -> tuple[np.ndarray, ...]:
        indices, epochs = at(int(step))
        drawn = augment(order.uniform_draws(seed, epochs, indices), int(step))
        return (*examples.find(indices), indices, *(drawn[name] for name in names))

    probe = augment(np.full((1, order.DRAWS), 0.5), 0)
    names = sorted(probe)
    specs = (
        *examples.find_spec,
        tf.TensorSpec([], tf.int64),
        *(tf.TensorSpec(probe[name].shape[1:], probe[name].dtype) for name in names),
    )

    def prepare(*row: tf.Tensor) -> dict[str, tf.Tensor]:
        found = len(examples.find_spec)
        image, label = examples.load(*row[:found])
        drawn = dict(zip(names, row[found + 1 :], strict=True))
        square = preprocess.pad(preprocess.resize_and_center(image, resize), pad)
        window = preprocess.crop_and_flip(square, drawn["crop_offset"], drawn["flip"], crop)
        return {"image": window, "label": label, "index": row[found], **drawn}

    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    batches = _rows(steps, find, specs).map(prepare, tf.data.AUTOTUNE, deterministic=True)
    return _iterate(
        batches.batch(share, drop_remainder=True),
        examples,
        lambda delivered: at(start_step + delivered)[0],
    )


def evaluation_batches(
    examples: Examples,
    *,
    batch_size: int,
    resize: int,
    pad: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch, None, None]:
    """Every example once, in order; the last batch is padded and the padding masked.

    Args:
      examples: the split.
      batch_size: examples in a batch over all processes.
      resize: pixels of the central square; protocols crop it on the device.
      pad: zeros around it, in pixels on each side.
      process_index, process_count: as in `training_batches`.

    Yields:
      `image` uint8 [b, square, square, 3] of resize + 2 pad pixels, `label` int32 [b],
      `mask` float32 [b], 1 for an example and 0 for padding, b the share of this process.

    Raises:
      DataError: an image cannot be decoded; the message names it.
    """
    share = batch_size // process_count
    steps = -(-examples.count // batch_size)

    def at(step: int) -> tuple[np.ndarray, np.ndarray]:
        positions = step * batch_size + process_index * share + np.arange(share)
        real = positions < examples.count
        return np.where(real, positions, 0), real.astype(np.float32)

    def find(step: np.int64) -> tuple[np.ndarray, ...]:
        indices, mask = at(int(step))
        return (*examples.find(indices), mask)

    def prepare(*row: tf.Tensor) -> dict[str, tf.Tensor]:
        image, label = examples.load(*row[:-1])
        square = preprocess.pad(preprocess.resize_and_center(image, resize), pad)
        return {"image": square, "label": label, "mask": row[-1]}

    specs = (*examples.find_spec, tf.TensorSpec([], tf.float32))
    rows = _rows(tf.data.Dataset.range(steps), find, specs)
    batches = rows.map(prepare, tf.data.AUTOTUNE, deterministic=True)
    return _iterate(
        batches.batch(share, drop_remainder=True), examples, lambda delivered: at(delivered)[0]
    )


def _rows(
    steps: tf.data.Dataset,
    find: Callable[[np.int64], tuple[np.ndarray, ...]],
    specs: tuple[tf.TensorSpec, ...],
) -> tf.data.Dataset:
    """Applies `find` to every step and gives the rows of what it returns one by one."""

    def traced(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        columns = tf.numpy_function(find, [step], [spec.dtype for spec in specs], stateful=False)
        for column, spec in zip(columns, specs, strict=True):
            column.set_shape([None, *spec.shape])
        return tuple(columns)

    return steps.map(traced).unbatch()


def _iterate(
    batches: tf.data.Dataset, examples: Examples, indices_of: Callable[[int], np.ndarray]
) -> Generator[Batch, None, None]:
    """Runs the pipeline; `indices_of` says which examples its n-th batch holds."""
    delivered = 0
    try:
        for batch in batches.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            yield batch
            delivered += 1
    except tf.errors.OpError as error:
        raise _explain(error, examples, indices_of(delivered)) from error


def _explain(error: tf.errors.OpError, examples: Examples, suspects: np.ndarray) -> DataError:
    """Says which example it was, which tf.data does not."""
    for index in suspects:
        row = [column[0] for column in examples.find(np.array([index]))]
        try:
            examples.load(*row)
        except tf.errors.OpError as cause:
            reason = cause.message.splitlines()[0].split("[Op:")[0].strip()
            name = examples.name(int(index))
            return DataError(f"{name}: cannot be read ({reason}); repair or remove it")
    return DataError(f"the images could not be prepared: {error.message.splitlines()[0]}")
