"""Mean image and colour covariance of a training set, in one pass whose memory does not grow."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import tqdm

from input_pipeline import sources
from input_pipeline.batches import evaluation_batches
from input_pipeline.sources import Examples


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What the networks' inputs are normalised with.

    Attributes:
      mean: float32 [size, size, 3], mean of every pixel over the training set, in grey levels.
      covariance: float64 [3, 3], covariance of RGB over all pixels of all images, in grey
        levels squared.
    """

    mean: np.ndarray
    covariance: np.ndarray


def training_statistics(examples: Examples, size: int, cache_dir: Path) -> Statistics:
    """Statistics of the training images, each resized and centred to size x size.

    Computed once and kept in `cache_dir`, keyed by the examples and the
    preprocessing. Sums are integers, so the result does not depend on the order.

    Raises:
      DataError: an image cannot be decoded; the message names it.
    """
    key = sources.digest(examples.fingerprint, f"resize_and_center:{size}")
    cache = cache_dir / f"statistics-{key}.npz"
    saved = sources.load_arrays(cache)
    if saved is not None and saved.keys() >= {"mean", "covariance"}:
        return Statistics(saved["mean"], saved["covariance"])

    batch = 64
    total = np.zeros((size, size, 3), np.int64)
    products = np.zeros((3, 3), np.int64)
    with tqdm.tqdm(
        total=examples.count, desc="mean image and colours", unit=" images", file=sys.stderr
    ) as progress:
        for images in evaluation_batches(examples, batch_size=batch, resize=size):
            real = images["image"][images["mask"] > 0]
            total += real.sum(axis=0, dtype=np.int64)
            colours = real.reshape(-1, 3).astype(np.float64)
            products += (colours.T @ colours).astype(np.int64)  # exact below 2^53
            progress.update(len(real))
    pixels = examples.count * size * size
    channel_mean = total.sum(axis=(0, 1)) / pixels
    statistics = Statistics(
        mean=(total / examples.count).astype(np.float32),
        covariance=products / pixels - np.outer(channel_mean, channel_mean),
    )
    sources.save_arrays(cache, mean=statistics.mean, covariance=statistics.covariance)
    return statistics
