"""An opened dataset with everything that a config says of it."""

import dataclasses
import functools
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from input_pipeline import augment, batches
from input_pipeline.augment import Crops
from input_pipeline.batches import Batch, Reading
from input_pipeline.check import check_fields
from input_pipeline.datasets import Dataset, default_cache_dir, open_dataset
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.pixel_statistics import PixelStatistics, pixel_statistics
from input_pipeline.prepare import prepare_data
from input_pipeline.prepared import open_prepared, settings_of
from input_pipeline.report import Report, silent, warn
from input_pipeline.sources import Examples

# Kinds of mean that are computed from the training set.
_OF_TRAINING_SET = ("image", "image_center", "channel")


class Images(Protocol):
    """Which images an evaluation asks for.

    Attributes:
      side: pixels of the shorter side, of which the central square is taken.
      pad: zeros around it, in pixels on each side.
    """

    @property
    def side(self) -> int: ...  # noqa: D102

    @property
    def pad(self) -> int: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Colours:
    """What happens to the colours of training images, and what is subtracted from all.

    Attributes:
      noise: `paper`, `original`, `gaussian` or `none`; see `augment.colour_basis`.
      cast: grey levels either way; see `augment.draw_colours`.
      mean: `image`, `image_center`, `channel`, `values` or `none`.
      mean_values: for `values`, RGB.
      deviation: RGB, divided by.
    """

    noise: str
    cast: int
    mean: str
    mean_values: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Data:
    """An opened dataset, and how its images are read, cropped and coloured.

    Attributes:
      dataset: its splits, or the one that was asked for.
      crops: of training.
      colours: of training, and the normalisation.
      reading: how images are read.
      cache_dir: where the mean image is kept.
      open_training: opens the training split, where it was not asked for.
    """

    dataset: Dataset
    crops: Crops
    colours: Colours
    reading: Reading
    cache_dir: Path
    open_training: Callable[[], Examples]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.dataset.class_names

    @property
    def fingerprint(self) -> str:
        """Changes with the files, the labels and the division into splits."""
        return self.dataset.fingerprint

    @property
    def evaluation_split(self) -> str:
        """The split that results are reported on."""
        return self.dataset.evaluation_split

    def examples(self, split: str) -> Examples:
        """The examples of a split; raises DataError if there is no such split."""
        return self.dataset.examples(split)

    def training(
        self,
        start: int = 0,
        *,
        seed: int,
        batch_size: int,
        colour_noise_steps: int | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Generator[Batch, None, None]:
        """The training stream from a step on; see `batches.training_batches`.

        Args:
          start: the first step.
          seed: of order and augmentation.
          batch_size: examples in a batch over all processes.
          colour_noise_steps: there is no colour noise from this step on; None keeps it.
          part: number of this process's share of every batch, and how many there are.

        Raises:
          DataError: see `training_batches`.
        """
        noise, cast = self.colours.noise, self.colours.cast
        covariance = np.zeros((3, 3)) if noise == "none" else self.pixel_statistics.covariance
        basis, scale = augment.colour_basis(noise, covariance)

        def colours(uniform: np.ndarray, step: int) -> dict[str, np.ndarray]:
            noisy = colour_noise_steps is None or step < colour_noise_steps
            drawn = basis if noisy else None
            return augment.draw_colours(uniform, basis=drawn, scale=scale, cast=cast)

        return batches.training_batches(
            self.examples("train"),
            self.crops,
            seed=seed,
            batch_size=batch_size,
            colours=colours,
            reading=self.reading,
            start_step=start,
            process_index=part[0],
            process_count=part[1],
        )

    def evaluation(
        self,
        split: str,
        images: Images,
        *,
        batch_size: int,
        part: tuple[int, int] = (0, 1),
        start: int = 0,
    ) -> Generator[Batch, None, None]:
        """One pass over a split; see `batches.evaluation_batches`.

        Args:
          split: its name.
          images: which images are asked for.
          batch_size: examples in a batch over all processes.
          part: number of this process's share of every batch, and how many there are.
          start: the first batch.

        Raises:
          DataError: no such split, or prepared images that are too small.
        """
        examples = self.examples(split)
        if examples.side is not None and examples.side < images.side:
            raise DataError(
                f"the images are prepared with a shorter side of {examples.side} pixels, and "
                f"{images.side} are asked for: prepare them with --config.data.resize={images.side}"
                ", or use the images themselves, without data.prepared_dir"
            )
        return batches.evaluation_batches(
            examples,
            augment.central_square(images.side, images.pad),
            batch_size=batch_size,
            reading=self.reading,
            process_index=part[0],
            process_count=part[1],
            start=start,
        )

    def normalization(self) -> dict[str, np.ndarray]:
        """What images are normalised with: (pixel - mean) / deviation.

        Returns:
          float32 `mean` [square, square, 3] of resize + 2 pad pixels, and `deviation` [3].
          `mean` is the mean of every pixel for data.mean=`image` and `image_center`, one mean
          per colour for `channel`, `mean_values` for `values`, and zero for `none`. Means of
          the training set are zero under the padding, so that padding is the mean, as in He et
          al. 2015, section 4.2.

        Raises:
          DataError: the mean is of a training set that is not there.
        """
        pad, kind = self.crops.pad, self.colours.mean
        if kind in _OF_TRAINING_SET:
            mean = self.pixel_statistics.mean
            if kind == "channel":
                mean = np.broadcast_to(mean.mean(axis=(0, 1), dtype=np.float64), mean.shape)
            mean = np.pad(mean, [(pad, pad), (pad, pad), (0, 0)])
        else:
            colours = self.colours.mean_values if kind == "values" else (0.0, 0.0, 0.0)
            square = self.crops.resize + 2 * pad
            mean = np.broadcast_to(np.array(colours), (square, square, 3))
        return {
            "mean": np.ascontiguousarray(mean, np.float32),
            "deviation": np.array(self.colours.deviation, np.float32),
        }

    @functools.cached_property
    def pixel_statistics(self) -> PixelStatistics:
        """Mean image and colours of the training set, computed once or read from the cache."""
        if "train" in self.dataset.splits:
            examples = self.examples("train")
        else:
            try:
                examples = self.open_training()
            except DataError as error:
                raise DataError(
                    f"data.mean={self.colours.mean} is computed from the training set: {error}\n"
                    "To do without: --config.init_preprocessing, or --config.data.mean=values or "
                    "none"
                ) from error
        return pixel_statistics(examples, self.crops.resize, self.cache_dir, self.reading)


def open_data(
    data: Any,
    cache_dir: Path,
    *,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
    report: Report = silent,
) -> Data:
    """The dataset that a config's `data` fields name, prepared or not; says what is not used.

    Args:
      data: the fields of a config. They are read here and nowhere after.
      cache_dir, only, class_names: see `open_dataset`.
      report: called for every image that is repaired or left out.

    Raises:
      DataError: see `check_fields`, `open_dataset` and `open_prepared`.
    """
    check_fields(data)

    def training() -> Examples:
        return _open(data, cache_dir, "train").examples("train")

    return Data(
        _open(data, cache_dir, only, class_names),
        augment.crops_of(data),
        Colours(
            data.augment.colour_noise,
            data.augment.colour_cast,
            data.mean,
            tuple(data.mean_values),
            tuple(data.deviation),
        ),
        reading_of(data, report),
        cache_dir,
        training,
    )


def reading_of(data: Any, report: Report = silent) -> Reading:
    """How images are read, from the fields `decode`, `unreadable` and `threads` of a config."""
    return Reading(
        exact=data.decode == "exact",
        unreadable=data.unreadable,
        report=report,
        threads=data.threads,
    )


def cache_dir_of(data: Any) -> Path:
    """Where mean images and indices are kept, from the field `cache_dir` of a config."""
    return Path(data.cache_dir) if data.cache_dir else default_cache_dir()


def _open(
    data: Any, cache_dir: Path, only: str | None = None, class_names: Sequence[str] | None = None
) -> Dataset:
    if data.prepared_dir:
        return open_prepared(
            Path(data.prepared_dir),
            settings_of(data),
            cache_dir,
            as_they_are=not data.augment.scale_range and data.augment.crop != "area",
            only=only,
        )
    return _open_unprepared(data, cache_dir, only, class_names)


def _open_unprepared(
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
    data: Any,
    cache_dir: Path,
    report: Report = silent,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Prepares the dataset of a config in `data.prepared_dir`; a sentence on what is there now.

    Raises:
      DataError: no directory, or see `open_dataset` and `prepare_data`.
    """
    check_fields(data)
    if not data.prepared_dir:
        raise DataError("preparing needs a directory to write to: --config.data.prepared_dir=DIR")
    directory, settings = Path(data.prepared_dir), settings_of(data)
    dataset = _open_unprepared(data, cache_dir)
    about = prepare_data(dataset, directory, settings, reading_of(data, report), stopped)
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
