"""Batches of NumPy arrays, made from examples by threads of tf.data."""

import dataclasses
import os
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from input_pipeline import ahead, annotations, augment, box_views, order
from input_pipeline.ahead import Batch
from input_pipeline.augment import Crops
from input_pipeline.boxes import Boxes, as_read, extents
from input_pipeline.decode import Repair, UnreadableError
from input_pipeline.errors import DataError
from input_pipeline.report import Report, silent
from input_pipeline.sources import Examples

T = TypeVar("T")

# How far the aspect of an image may be from that of its annotation.
_OFF = 0.03
# This many unreadable images in a row mean that something is wrong with the dataset.
_TOO_MANY = 100


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
      exact: decode large JPEGs without DCT scaling; see `decode.window`.
      unreadable: what to do about an image that cannot be decoded. `leave_out`: training takes
        the next example instead, evaluation omits it. `fail`: raise DataError.
      report: called for every image that is repaired or left out.
      threads: number of decoding threads; None for the number of available cores.
      boxes: which boxes come with an example, as `boxes` float32 [b, count, 4] and `box_labels`
        int32 [b, count]; None for no such arrays. Boxes are left, top, right and bottom, around
        the last pixels, as shares of the width and height of what `image` shows of the example.
        After the last box, edges are 0 and labels -1, which is also the label of objects that are
        none of the dataset's classes.
    """

    exact: bool = False
    unreadable: str = "leave_out"
    report: Report = silent
    threads: int | None = None
    boxes: box_views.Wanted | None = None

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
    epoch_of: order.EpochOrder = order.epoch_order,
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
      share: (number, shares), where `shares` divides `batch_size`: this process gets the
        batch_size / shares rows of every batch that begin at number * batch_size / shares.
      epoch_of: the order of each epoch.

    Yields:
      `image` uint8 [b, crop, crop, 3], `label` int32 [b], `index` int64 [b], `crop_offset`
      int32 [b, 2] (y, x), `flip` bool [b], and the arrays of `colours`, b the share of this
      process. Images are cropped and mirrored already. With `reading.boxes` also `boxes` and
      `box_labels`, of what the crop shows.

    Raises:
      DataError: an image cannot be decoded and `reading` says to fail, or a hundred in a row
        cannot be decoded; the message names it; or boxes are asked for, and there are none.
    """
    number, shares = share
    size = batch_size // shares
    boxes = _Boxes(examples, reading)

    def at(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps, rows = np.divmod(positions, size)
        stream = steps * batch_size + number * size + rows
        keys, epochs = order.examples_at(seed, stream, examples.count, epoch_of)
        uniform = order.uniform_draws(seed, epochs, keys, augment.DRAWS)
        return keys % examples.count, uniform

    def fill(positions: np.ndarray, out: Batch) -> None:
        indices, uniform = at(positions)
        for row, index in enumerate(indices):
            for _ in range(_TOO_MANY):
                taken = _take(examples, index, crops, uniform[row], out["image"][row], reading)
                if taken is not None:
                    break
                index = (index + 1) % examples.count
            else:
                last = int(index - 1) % examples.count
                raise DataError(
                    f"{examples.name(last)} and the {_TOO_MANY - 1} images before it "
                    "cannot be read; is this the right dataset?"
                )
            out["index"][row] = index
            out["label"][row], out["crop_offset"][row], out["flip"][row] = taken[:3]
            if boxes.wanted is not None:
                there = boxes.upright(int(index), taken.content, taken.size)
                found = box_views.in_crop(
                    there, crops, uniform[row].tolist(), taken.size, boxes.wanted
                )
                boxes.fill(out, row, taken.label, *found)

    side = crops.crop
    specs = {
        "image": tf.TensorSpec([size, side, side, 3], tf.uint8),
        "label": tf.TensorSpec([size], tf.int32),
        "index": tf.TensorSpec([size], tf.int64),
        "crop_offset": tf.TensorSpec([size, 2], tf.int32),
        "flip": tf.TensorSpec([size], tf.bool),
        **boxes.specs(size),
    }
    batches = ahead.batches(fill, specs, reading.parallel, start=start)
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
      crops: of the kind `center`, from `augment.central_square`; protocols crop further on the
        device.
      batch_size: examples in a batch over all processes.
      reading: how images are read.
      start: the first batch; those before it are not read.
      share: as in `training_batches`.

    Yields:
      `image` uint8 [b, crop, crop, 3], `label` int32 [b], `index` int64 [b] of the example
      in the split, `mask` float32 [b], b the share of this process. For padding and for images
      that are left out the mask is 0 and the index -1; for all others the mask is 1. With
      `reading.boxes` also `boxes` and `box_labels`; boxes may extend beyond the square.

    Raises:
      DataError: an image cannot be decoded and `reading` says to fail, or no image of the split
        can be decoded; the message names it; or boxes are asked for, and there are none.
    """
    number, shares = share
    size = batch_size // shares
    boxes = _Boxes(examples, reading)

    def fill(positions: np.ndarray, out: Batch) -> None:
        steps, rows = np.divmod(positions, size)
        _nothing(out)
        for row, index in enumerate(steps * batch_size + number * size + rows):
            taken = None
            if index < examples.count:
                taken = _take(examples, index, crops, augment.MIDDLE, out["image"][row], reading)
            if taken is None:
                out["image"][row] = 0
            else:
                out["label"][row], out["mask"][row], out["index"][row] = taken.label, 1, index
            if taken is not None and boxes.wanted is not None:
                there = boxes.upright(int(index), taken.content, taken.size)
                found = box_views.in_square(there, crops, taken.size)
                boxes.fill(out, row, taken.label, *found)

    specs = _evaluation_specs(size, (crops.crop, crops.crop)) | boxes.specs(size)
    steps = -(-examples.count // batch_size)
    batches = ahead.batches(fill, specs, reading.parallel, start=start, stop=max(start, steps))
    yield from _checked(batches, examples, whole=not start and shares == 1)


class Planned(Protocol):
    """A batch of whole images.

    Attributes:
      shape: height and width that they are padded to.
      rows: int64 [n], indices of its examples in the split; n is at most the batch size.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""

    @property
    def rows(self) -> np.ndarray:
        """Indices in the split."""


def whole_batches(
    examples: Examples,
    side: int,
    plan: Sequence[Planned],
    *,
    batch_size: int,
    reading: Reading,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Generator[Batch, None, None]:
    """Whole images, each padded below and at the right to the shape of its batch.

    Args:
      examples: the split.
      side: pixels of the shorter side.
      plan: the batches, which together contain each example once.
      batch_size: examples in a batch over all processes.
      reading, start, share: as in `evaluation_batches`.

    Yields:
      The arrays of `evaluation_batches`, with `image` padded to the shape of each batch; and
      `valid` int32 [b, 2], height and width of each image without its padding (1 where there is
      no image).

    Raises:
      DataError: as in `evaluation_batches`; or an image is larger than the shape of its batch.
    """
    number, shares = share
    size = batch_size // shares
    boxes = _Boxes(examples, reading)

    def fill(positions: np.ndarray, out: Batch) -> None:
        _nothing(out)
        out["valid"][:] = 1
        for row, (step, place) in enumerate(zip(*np.divmod(positions, size), strict=True)):
            members, place = plan[step].rows, number * size + place
            if place >= len(members):
                out["image"][row] = 0
                continue
            index = members[place]

            def take(content: bytes | np.ndarray, repaired: Repair, row: int = row) -> tuple:
                image = out["image"][row]
                scaled = augment.take_whole(
                    content, side, image, exact=reading.exact, repaired=repaired
                )
                return scaled, content

            taken = _used(examples, index, reading, take)
            if taken is None:
                out["image"][row] = 0
                continue
            label, (scaled, content) = taken
            if any(length > most for length, most in zip(scaled, plan[step].shape, strict=True)):
                raise DataError(
                    f"{examples.name(int(index))}: its size has changed since sizes were looked "
                    "up; remove sizes-*.npz from the cache directory (data.cache_dir)"
                )
            out["label"][row], out["mask"][row], out["index"][row] = label, 1, index
            out["valid"][row] = scaled
            if boxes.wanted is not None:
                there = boxes.upright(int(index), content, scaled)
                boxes.fill(out, row, label, there.edges, there.labels)

    specs = _evaluation_specs(size, (None, None)) | boxes.specs(size)
    specs["valid"] = tf.TensorSpec([size, 2], tf.int32)
    batches = ahead.batches(
        fill, specs, reading.parallel,
        start=start, stop=max(start, len(plan)), shape_of=lambda batch: plan[batch].shape,
    )  # fmt: skip
    yield from _checked(batches, examples, whole=not start and shares == 1)


def _evaluation_specs(size: int, shape: tuple[int | None, int | None]) -> dict[str, tf.TensorSpec]:
    return {
        "image": tf.TensorSpec([size, *shape, 3], tf.uint8),
        "label": tf.TensorSpec([size], tf.int32),
        "index": tf.TensorSpec([size], tf.int64),
        "mask": tf.TensorSpec([size], tf.float32),
    }


def _nothing(out: Batch) -> None:
    """Marks all rows as without an example; leaves the pixels as they are."""
    out["label"][:] = 0
    out["mask"][:] = 0
    out["index"][:] = -1
    if "boxes" in out:
        out["boxes"][:], out["box_labels"][:] = 0, -1


def _checked(
    batches: Generator[Batch, None, None], examples: Examples, *, whole: bool
) -> Generator[Batch, None, None]:
    """Passes the batches on; raises DataError if `whole` and none of their images was decoded."""
    read = 0
    for batch in batches:
        read += int(batch["mask"].sum())
        yield batch
    if not read and whole:
        raise DataError(
            f"none of the {examples.count} images, {examples.name(0)} the first, can be read"
        )


class _Boxes:
    """The boxes of a split's examples, as arrays of its batches where these are wanted."""

    def __init__(self, examples: Examples, reading: Reading):
        """Raises DataError if they are wanted, and there are no annotations."""
        self.examples, self.report, self.wanted = examples, reading.report, reading.boxes
        if self.wanted is not None:
            self.of = annotations.boxes_of(examples, f"data.boxes.count={self.wanted.count}")

    def upright(self, index: int, content: bytes | np.ndarray, size: tuple[int, int]) -> Boxes:
        """The boxes of an example, around their last pixels, as shares of the upright image.

        An image of another aspect than its annotation says is reported: the annotation may be of
        another image.

        Args:
          index: of the example.
          content: of the image.
          size: height and width of the upright image, or in proportion to them.
        """
        found = as_read(extents(self.of(index)), content)
        (width, height), (rows, columns) = found.shown, size
        if len(found.edges) and abs(width * rows - height * columns) > _OFF * width * rows:
            self.report(
                self.examples.name(index),
                "annotated at another size",
                f"its annotation is of {width} x {height} pixels, which {columns} x {rows} are not "
                "in proportion to",
            )
        return found

    def specs(self, size: int) -> dict[str, tf.TensorSpec]:
        """Of the arrays in a batch of `size` examples."""
        if self.wanted is None:
            return {}
        return {
            "boxes": tf.TensorSpec([size, self.wanted.count, 4], tf.float32),
            "box_labels": tf.TensorSpec([size, self.wanted.count], tf.int32),
        }

    def fill(self, out: Batch, row: int, own: int, found: np.ndarray, labels: np.ndarray) -> None:
        """Writes the boxes [n, 4] and labels [n] of an example with the label `own`."""
        assert self.wanted is not None
        out["boxes"][row], out["box_labels"][row] = box_views.arrays(
            found, labels, own, self.wanted.count
        )


class _Taken(NamedTuple):
    """An example whose crop was taken; `size` is height and width of the upright image."""

    label: int
    offset: tuple[int, int]
    flip: bool
    content: bytes | np.ndarray
    size: tuple[int, int]


def _take(
    examples: Examples,
    index: np.int64,
    crops: Crops,
    uniform: np.ndarray,
    out: np.ndarray,
    reading: Reading,
) -> _Taken | None:
    """Writes an example's crop to `out`; returns None if it is left out."""
    size = (0, 0)

    def sized(height: int, width: int) -> None:
        nonlocal size
        size = height, width

    def take(content: bytes | np.ndarray, repaired: Repair) -> tuple[Any, bool, Any]:
        offset, flip = augment.take(
            content, crops, uniform, out, exact=reading.exact, repaired=repaired, sized=sized
        )
        return offset, flip, content

    taken = _used(examples, index, reading, take)
    if taken is None:
        return None
    label, (offset, flip, content) = taken
    return _Taken(label, offset, flip, content, size)


def _used(
    examples: Examples,
    index: np.int64,
    reading: Reading,
    use: Callable[[bytes | np.ndarray, Repair], T],
) -> tuple[int, T] | None:
    """An example's label and what `use` makes of its content; None if it is left out."""
    content, label = examples.read(int(index))

    def repaired(reason: str) -> None:
        reading.report(examples.name(int(index)), "repaired", reason)

    try:
        return label, use(content, repaired)
    except UnreadableError as error:
        leave_out(examples, int(index), error, reading)
        return None


def leave_out(examples: Examples, index: int, error: UnreadableError, reading: Reading) -> None:
    """Reports that an example is left out.

    Raises:
      DataError: `reading` says to fail instead.
    """
    name = examples.name(index)
    if reading.unreadable == "fail":
        raise DataError(
            f"{name}: {error}; repair or remove it, or --config.data.unreadable=leave_out"
        ) from error
    reading.report(name, "left out", str(error))
