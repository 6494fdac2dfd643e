"""Photographs in, batches out. The only package that imports TensorFlow.

dataset = open_dataset("imagenet2012", "/data/imagenet")
statistics = training_statistics(dataset.examples("train"), 256, default_cache_dir())
for batch in training_stream(dataset, statistics, config.data, reading, ...): ...

A file a stage: sources and datasets (where examples are), order (which one comes when),
decode (bytes to pixels), augment (crops and colours), batches (the tf.data pipelines);
kernels has the inner loops, prepare writes datasets at a fixed size.
"""

import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

# TensorFlow only feeds images here: its start-up messages about devices and
# instruction sets say nothing to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Nor is its Keras needed, which takes a second to import.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf

from input_pipeline import augment, batches
from input_pipeline.augment import Crops
from input_pipeline.batches import Batch, Reading, training_batches
from input_pipeline.datasets import REPORTED, Dataset, default_cache_dir, open_dataset
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.prepare import prepare_data
from input_pipeline.prepared import open_prepared, settings_of
from input_pipeline.report import Report, reporter, silent, warn
from input_pipeline.statistics import Statistics, training_statistics

__all__ = [
    "REPORTED",
    "DataError",
    "Dataset",
    "Reading",
    "Statistics",
    "check_fields",
    "default_cache_dir",
    "evaluation_stream",
    "needs_statistics",
    "normalization",
    "open_data",
    "open_dataset",
    "prepare_data",
    "prepare_from",
    "reading_from",
    "reporter",
    "training_statistics",
    "training_stream",
]

# Accelerators belong to JAX; TensorFlow would take all their memory.
tf.config.set_visible_devices([], "GPU")


def check_fields(data: Any) -> None:
    """Looks over how a config's `data` fields go together before anything is spent on them.

    Raises:
      DataError: a crop larger than the image, scales below the crop, a range whose ends are
        the wrong way round, or what contradicts another field; the message names the field.
    """
    chosen = data.augment
    padding = f" padded by data.pad={data.pad}" if data.pad else ""
    if data.crop > data.resize + 2 * data.pad:
        raise DataError(
            f"data.crop={data.crop} does not fit into data.resize={data.resize} pixels{padding}"
        )

    scales = chosen.scale_range
    if scales:
        if chosen.crop not in ("square", "image"):
            raise DataError(
                f"data.augment.scale_range has no meaning with data.augment.crop={chosen.crop}: "
                "--config.data.augment.scale_range=()"
            )
        if scales[0] > scales[1]:
            raise DataError(
                f"data.augment.scale_range={scales}: smallest and largest shorter side, "
                "such as (256,512)"
            )
        if scales[0] + 2 * data.pad < data.crop:
            raise DataError(
                f"data.augment.scale_range={scales}: the smallest is below "
                f"data.crop={data.crop}{padding}"
            )
    for field in ("area_range", "aspect_range"):
        smaller, larger = chosen[field]
        if smaller > larger:
            raise DataError(f"data.augment.{field}={(smaller, larger)}: the smaller first")
    if data.pad and (chosen.crop == "area" or chosen.crop == "image" or _crops(data).distorts):
        raise DataError(
            f"data.pad={data.pad} goes with data.augment.crop=square or center and without "
            "distortion; for others --config.data.pad=0"
        )
    if data.mean == "image" and (chosen.crop in ("image", "area") or scales):
        raise DataError(
            "data.mean=image is the mean under each crop of the central square; with "
            f"data.augment.crop={chosen.crop}"
            + (" and scale_range" if scales else "")
            + " choose data.mean=image_center or channel"
        )


def _crops(data: Any) -> Crops:
    """How training crops are taken, from the fields of a config."""
    chosen = data.augment
    return Crops(
        resize=data.resize,
        crop=data.crop,
        kind=chosen.crop,
        scale_range=tuple(chosen.scale_range),
        area_range=tuple(chosen.area_range),
        aspect_range=tuple(chosen.aspect_range),
        flip=chosen.flip,
        pad=data.pad,
        rotation=chosen.rotation,
        stretch=chosen.stretch,
        shear=chosen.shear,
        lens=chosen.lens,
    )


def reading_from(data: Any, report: Report = silent) -> Reading:
    """How images are read, from the fields `decode`, `unreadable` and `threads` of a config."""
    return Reading(
        exact=data.decode == "exact",
        unreadable=data.unreadable,
        report=report,
        threads=data.threads,
    )


def open_data(
    data: Any,
    cache_dir: Path,
    *,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """The dataset that a config's `data` fields name, prepared or not; says what is not used.

    Args:
      data: the fields of a config.
      cache_dir, only, class_names: see `open_dataset`.

    Raises:
      DataError: see `open_dataset` and `open_prepared`.
    """
    if data.prepared_dir:
        return open_prepared(
            Path(data.prepared_dir),
            settings_of(data),
            cache_dir,
            as_they_are=not data.augment.scale_range and data.augment.crop != "area",
            only=only,
        )
    return _open(data, cache_dir, only, class_names)


def _open(
    data: Any, cache_dir: Path, only: str | None = None, class_names: Sequence[str] | None = None
) -> Dataset:
    dataset = open_dataset(
        data.name,
        data.dir,
        validation_examples=data.validation_examples,
        cache_dir=cache_dir,
        only=only,
        class_names=class_names,
    )
    for note in dataset.notes:
        warn(note, "note")
    return dataset


def prepare_from(
    data: Any, cache_dir: Path, reading: Reading, stopped: Callable[[], bool] = lambda: False
) -> str:
    """Prepares the dataset of a config in `data.prepared_dir`; a sentence on what is there now.

    Raises:
      DataError: no directory, or see `open_dataset` and `prepare_data`.
    """
    if not data.prepared_dir:
        raise DataError("preparing needs a directory to write to: --config.data.prepared_dir=DIR")
    directory, settings = Path(data.prepared_dir), settings_of(data)
    dataset = _open(data, cache_dir)
    about = prepare_data(dataset, directory, settings, reading, stopped)
    shards = about["shards"].values()
    counts: dict[str, int] = {}
    for shard in shards:
        counts[shard["split"]] = counts.get(shard["split"], 0) + shard["records"]
    said = ", ".join(f"{split} {count}" for split, count in counts.items())
    size = sum(shard["bytes"] for shard in shards) / 1e9
    again = ""
    if data.augment.scale_range or data.augment.crop == "area":
        again = " These crops rescale them once more: not the pixels of the images themselves."
    return (
        f"{shown(directory)}: {said} images, {size:.2f} GB, shorter side {settings['size']}, "
        f"{settings['format']}; {about['repaired']} repaired and {about['left_out']} left out "
        f"(report.jsonl). Train with --config.data.prepared_dir={shown(directory)}.{again}"
    )


def training_stream(
    dataset: Dataset,
    statistics: Statistics | None,
    data: Any,
    reading: Reading,
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
      reading: from `reading_from`.
      seed, batch_size, start_step, process_index, process_count: as in `training_batches`.
      colour_noise_steps: there is no colour noise from this step on; None keeps it.
    """
    covariance = np.zeros((3, 3)) if statistics is None else statistics.covariance
    basis, scale = augment.colour_basis(data.augment.colour_noise, covariance)
    cast = data.augment.colour_cast

    def colours(uniform: np.ndarray, step: int) -> dict[str, np.ndarray]:
        noisy = colour_noise_steps is None or step < colour_noise_steps
        return augment.draw_colours(uniform, basis=basis if noisy else None, scale=scale, cast=cast)

    return training_batches(
        dataset.examples("train"),
        _crops(data),
        seed=seed,
        batch_size=batch_size,
        colours=colours,
        reading=reading,
        start_step=start_step,
        process_index=process_index,
        process_count=process_count,
    )


def evaluation_stream(
    dataset: Dataset,
    split: str,
    data: Any,
    reading: Reading,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch, None, None]:
    """One pass over a split, central squares of `data.resize`; see `evaluation_batches`."""
    return batches.evaluation_batches(
        dataset.examples(split),
        augment.central_square(data.resize, data.pad),
        batch_size=batch_size,
        reading=reading,
        process_index=process_index,
        process_count=process_count,
    )


def needs_statistics(data: Any, *, mean: bool = True, colours: bool = True) -> bool:
    """Whether the fields ask for anything that has to be computed from the training set.

    Args:
      data: the fields `mean` and `augment` of a config.
      mean: False if the mean comes from elsewhere.
      colours: False if there is no colour noise, as in evaluation.
    """
    of_training_set = data.mean in ("image", "image_center", "channel")
    return (mean and of_training_set) or (colours and data.augment.colour_noise != "none")


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
