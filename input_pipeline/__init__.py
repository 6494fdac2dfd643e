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
    "input_mean",
    "open_dataset",
    "training_batches",
    "training_statistics",
    "training_stream",
]

# Accelerators belong to JAX; TensorFlow would take all their memory.
tf.config.set_visible_devices([], "GPU")

# Values of data.mean.
MEANS = ("image", "image_center", "channel", "none")


def check_fields(data: Any) -> None:
    """Looks over a config's `data` fields before anything is spent on them.

    Raises:
      DataError: a crop larger than the image, or an unknown kind of noise or mean.
    """
    if not 0 < data.crop <= data.resize:
        raise DataError(f"data.crop={data.crop} does not fit into data.resize={data.resize} pixels")
    for field, value, known in (
        ("data.mean", data.mean, MEANS),
        ("data.augment.colour_noise", data.augment.colour_noise, preprocess.COLOUR_NOISE),
    ):
        if value not in known:
            raise DataError(f"{field}={value}: choose one of {', '.join(known)}")


def training_stream(
    dataset: Dataset,
    statistics: Statistics,
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
      statistics: of that split, at `data.resize` pixels.
      data: the fields `resize`, `crop` and `augment` of a config.
      seed, batch_size, start_step, process_index, process_count: as in `training_batches`.
      colour_noise_steps: there is no colour noise from this step on; None keeps it.
    """
    colours, scale = preprocess.colour_basis(data.augment.colour_noise, statistics.covariance)

    def augment(uniform: np.ndarray, step: int) -> dict[str, np.ndarray]:
        noisy = colour_noise_steps is None or step < colour_noise_steps
        return preprocess.draw_augmentation(
            uniform,
            margin=data.resize - data.crop,
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
        crop=data.crop,
        augment=augment,
        start_step=start_step,
        process_index=process_index,
        process_count=process_count,
    )


def input_mean(statistics: Statistics, kind: str) -> np.ndarray:
    """What is subtracted from the images: float32 [size, size, 3].

    Args:
      statistics: of the training split.
      kind: `image` or `image_center` for the mean of every pixel, `channel` for one
        mean per colour, `none` for zero.
    """
    mean = statistics.mean
    if kind in ("image", "image_center"):
        return mean
    if kind == "channel":
        average = mean.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        return np.broadcast_to(average, mean.shape).copy()
    return np.zeros_like(mean)
