"""Photographs in, batches out. The only package that imports TensorFlow.

dataset = open_dataset("imagenet2012", "/data/imagenet")
statistics = training_statistics(dataset.examples("train"), 256, default_cache_dir())
for batch in training_stream(dataset, statistics, config.data, ...): ...
"""

import os
from collections.abc import Generator
from typing import Any

# TensorFlow only feeds images here: its start-up messages about devices and
# instruction sets say nothing to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import tensorflow as tf

from input_pipeline import preprocess
from input_pipeline.batches import Batch, evaluation_batches, training_batches
from input_pipeline.datasets import Dataset, default_cache_dir, open_dataset
from input_pipeline.errors import DataError
from input_pipeline.statistics import Statistics, training_statistics

__all__ = [
    "DataError",
    "Dataset",
    "Statistics",
    "check_fields",
    "default_cache_dir",
    "evaluation_batches",
    "needs_statistics",
    "normalization",
    "open_dataset",
    "training_batches",
    "training_statistics",
    "training_stream",
]

# Accelerators belong to JAX; TensorFlow would take all their memory.
tf.config.set_visible_devices([], "GPU")

# Values of data.mean.
MEANS = ("image", "image_center", "channel", "values", "none")


def check_fields(data: Any) -> None:
    """Looks over a config's `data` fields before anything is spent on them.

    Raises:
      DataError: a crop larger than the image, or an unknown kind of noise or mean.
    """
    if data.pad < 0:
        raise DataError(f"data.pad={data.pad}: pixels on each side, at least 0")
    if not 0 < data.crop <= data.resize + 2 * data.pad:
        padding = f" padded by data.pad={data.pad}" if data.pad else ""
        raise DataError(
            f"data.crop={data.crop} does not fit into data.resize={data.resize} pixels{padding}"
        )
    if len(data.deviation) != 3 or min(data.deviation) <= 0:
        raise DataError(f"data.deviation={data.deviation}: three numbers above 0")
    if len(data.mean_values) != 3:
        raise DataError(f"data.mean_values={data.mean_values}: three numbers, RGB in 0..255")
    for field, value, known in (
        ("data.mean", data.mean, MEANS),
        ("data.augment.colour_noise", data.augment.colour_noise, preprocess.COLOUR_NOISE),
    ):
        if value not in known:
            raise DataError(f"{field}={value}: choose one of {', '.join(known)}")


def training_stream(
    dataset: Dataset,
    statistics: Statistics | None,
    data: Any,
    *,
    seed: int,
    batch_size: int,
    colour_noise_steps: int | None = None,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch, None, None]:
    """The training stream that a config's `data` fields describe; see `training_batches`.

    Args:
      dataset: its split `train` is read.
      statistics: of that split, at `data.resize` pixels; None without colour noise.
      data: the fields `resize`, `pad`, `crop` and `augment` of a config.
      seed, batch_size, start_step, process_index, process_count: as in `training_batches`.
      colour_noise_steps: there is no colour noise from this step on; None keeps it.
    """
    covariance = np.zeros((3, 3)) if statistics is None else statistics.covariance
    colours, scale = preprocess.colour_basis(data.augment.colour_noise, covariance)

    def augment(uniform: np.ndarray, step: int) -> dict[str, np.ndarray]:
        noisy = colour_noise_steps is None or step < colour_noise_steps
        return preprocess.draw_augmentation(
            uniform,
            margin=data.resize + 2 * data.pad - data.crop,
            random_crop=data.augment.random_crop,
            flip=data.augment.flip,
            colours=colours if noisy else None,
            colour_scale=scale,
        )

    return training_batches(
        dataset.examples("train"),
        seed=seed,
        batch_size=batch_size,
        resize=data.resize,
        pad=data.pad,
        crop=data.crop,
        augment=augment,
        start_step=start_step,
        process_index=process_index,
        process_count=process_count,
    )


def needs_statistics(data: Any, *, mean: bool = True) -> bool:
    """Whether the fields ask for anything that has to be computed from the training set.

    Args:
      data: the fields `mean` and `augment` of a config.
      mean: False if the mean comes from elsewhere.
    """
    of_training_set = data.mean in ("image", "image_center", "channel")
    return (mean and of_training_set) or data.augment.colour_noise != "none"


def normalization(data: Any, statistics: Statistics | None) -> dict[str, np.ndarray]:
    """What images are normalised with: (pixel - mean) / deviation.

    Args:
      data: the fields `resize`, `pad`, `mean`, `mean_values` and `deviation` of a config.
      statistics: of the training split; None where `needs_statistics` says so.

    Returns:
      float32 `mean` [square, square, 3] of resize + 2 pad pixels, and `deviation` [3].
      `mean` is the mean of every pixel for data.mean=`image` and `image_center`, one mean
      per colour for `channel`, `mean_values` for `values`, and zero for `none`. Means of
      the training set are zero under the padding, so that padding is the mean, as in He et
      al. 2015, section 4.2.
    """
    size = data.resize
    if data.mean in ("image", "image_center", "channel"):
        assert statistics is not None
        mean = statistics.mean
        if data.mean == "channel":
            mean = np.broadcast_to(mean.mean(axis=(0, 1), dtype=np.float64), mean.shape)
        mean = np.pad(mean, [(data.pad, data.pad), (data.pad, data.pad), (0, 0)])
    else:
        colours = data.mean_values if data.mean == "values" else (0.0, 0.0, 0.0)
        square = size + 2 * data.pad
        mean = np.broadcast_to(np.array(colours), (square, square, 3))
    return {
        "mean": np.ascontiguousarray(mean, np.float32),
        "deviation": np.array(data.deviation, np.float32),
    }
