"""Mean image and colour covariance of a training set, in one pass whose memory does not grow."""

import dataclasses
from pathlib import Path

import numpy as np

from input_pipeline import augment, sources
from input_pipeline.batches import Reading, evaluation_batches
from input_pipeline.report import progress_bar
from input_pipeline.sources import Examples

_DEFAULT = Reading()
# To be changed when other pixels are made of the same files: what was kept no longer holds.
_DECODER = "decoder 2"


@dataclasses.dataclass(frozen=True)
class PixelStatistics:
    """Of the training images, the central square of each.

    Attributes:
      mean: float32 [side, side, 3], mean of every pixel over the training set, in grey levels.
      covariance: float64 [3, 3], covariance of RGB over all pixels of all images, in grey
        levels squared.
    """

    mean: np.ndarray
    covariance: np.ndarray


def pixels_digest(examples: Examples, side: int, reading: Reading, *, whole: bool = False) -> str:
    """Changes with the pixels of the central squares at side x side, as they are read.

    Args:
      examples: of which split.
      side: pixels of the shorter side.
      reading: how images are read.
      whole: of the whole images instead.
    """
    part = "whole" if whole else "central_square"
    pixels = f"{part}:{side}:{'exact' if reading.exact else 'fast'}"
    return sources.digest(examples.fingerprint, pixels, _DECODER)


def pixel_statistics(
    examples: Examples, side: int, cache_dir: Path, reading: Reading = _DEFAULT
) -> PixelStatistics:
    """Statistics of the training images, the central square of each at side x side.

    Computed once and kept in `cache_dir`, keyed by the examples and the
    preprocessing. Sums are integers, so the result does not depend on the order.

    Args:
      examples: the training split.
      side: pixels.
      cache_dir: where they are kept.
      reading: how images are read; those that are left out do not count.

    Raises:
      DataError: an image cannot be read and must not be left out, or none can.
    """
    cache = cache_dir / f"statistics-{pixels_digest(examples, side, reading)}.npz"
    saved = sources.load_arrays(cache, "mean", "covariance")
    if saved is not None and saved["mean"].shape == (side, side, 3):
        return PixelStatistics(saved["mean"], saved["covariance"])

    batch, count, reading = 64, 0, dataclasses.replace(reading, boxes=None)
    total = np.zeros((side, side, 3), np.int64)
    products = np.zeros((3, 3), np.int64)
    with progress_bar(
        total=examples.count, desc="mean image and colours", unit=" images"
    ) as progress:
        squares = augment.central_square(side)
        for images in evaluation_batches(examples, squares, batch_size=batch, reading=reading):
            real = images["image"][images["mask"] > 0]
            count += len(real)
            total += real.sum(axis=0, dtype=np.int64)
            colours = real.reshape(-1, 3).astype(np.float64)
            products += (colours.T @ colours).astype(np.int64)  # exact below 2^53
            progress.update(min(batch, examples.count - progress.n))
    pixels = count * side * side
    channel_mean = total.sum(axis=(0, 1)) / pixels
    found = PixelStatistics(
        mean=(total / count).astype(np.float32),
        covariance=products / pixels - np.outer(channel_mean, channel_mean),
    )
    sources.save_arrays(cache, mean=found.mean, covariance=found.covariance)
    return found
