"""An opened dataset with everything that a config says of it."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from input_pipeline import augment, batches, sources
from input_pipeline.batches import Batch
from input_pipeline.datasets import Dataset, open_dataset
from input_pipeline.errors import DataError
from input_pipeline.from_config import Choices, choices
from input_pipeline.normalization import normalization
from input_pipeline.pixel_statistics import PixelStatistics, pixel_statistics, pixels_digest
from input_pipeline.prepare import write
from input_pipeline.prepared import described, open_prepared
from input_pipeline.report import Report, silent, warn
from input_pipeline.sources import Examples


class Images(Protocol):
    """Which images are asked for: the central square of each, with zeros around it."""

    @property
    def side(self) -> int:
        """Pixels of the square, and of the rescaled image's shorter side."""

    @property
    def pad(self) -> int:
        """Zeros on each side of the square, in pixels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """An opened dataset with everything that a config says of it; made by `open_data`.

    Attributes:
      dataset: the splits that were asked for.
      choices: what the config says.
      cache_dir: where pixel statistics are kept.
      open_training: opens the training split, for a mean that is computed from it.
    """

    dataset: Dataset
    choices: Choices
    cache_dir: Path
    open_training: Callable[[], Dataset]
    _known: dict[int, PixelStatistics] = dataclasses.field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.dataset.class_names

    @property
    def fingerprint(self) -> str:
        """Changes with any example of any split, and with what is held out."""
        return self.dataset.fingerprint

    @property
    def evaluation_split(self) -> str:
        """The split that results are reported on: the labelled test split where there is one."""
        return self.dataset.evaluation_split

    def examples(self, split: str) -> Examples:
        """The examples of a split.

        Raises:
          DataError: there is no such split.
        """
        return self.dataset.examples(split)

    def training(
        self,
        start: int,
        *,
        seed: int,
        batch_size: int,
        colour_noise_steps: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Generator[Batch, None, None]:
        """The endless training stream from a step on; see `training_batches`.

        Args:
          start: the first step.
          seed, batch_size: as in `training_batches`.
          colour_noise_steps: there is no colour noise from this step on; None keeps it.
          share: (number, shares): which share of every batch this process gets, and of how many.

        Raises:
          DataError: there is no training split, its images were prepared at another size, or
            its pixel statistics cannot be computed.
        """
        examples, chosen = self.examples("train"), self.choices
        _check_side(self.dataset, chosen.prepared_as["size"], larger=False)
        covariance = np.zeros((3, 3))
        if chosen.colours.need_covariance:
            covariance = self._pixel_statistics(chosen.crops.resize).covariance
        return batches.training_batches(
            examples,
            chosen.crops,
            seed=seed,
            batch_size=batch_size,
            colours=augment.colour_drawer(chosen.colours, covariance, colour_noise_steps),
            reading=chosen.reading,
            start=start,
            share=share,
        )

    def evaluation(
        self,
        split: str,
        images: Images,
        *,
        batch_size: int,
        share: tuple[int, int] = (0, 1),
        start: int = 0,
    ) -> Generator[Batch, None, None]:
        """One pass over a split, every example once; see `evaluation_batches`.

        Args:
          split: its name.
          images: which squares.
          batch_size: examples in a batch over all processes.
          share: as in `training`.
          start: the first batch; starting anywhere costs the same.

        Raises:
          DataError: there is no such split, or its images were prepared too small.
        """
        examples = self.examples(split)
        _check_side(self.dataset, images.side)
        return batches.evaluation_batches(
            examples,
            augment.central_square(images.side, images.pad),
            batch_size=batch_size,
            reading=self.choices.reading,
            start=start,
            share=share,
        )

    @property
    def shifts_colours(self) -> bool:
        """Whether training shifts colours along the principal components of the training set."""
        return self.choices.colours.need_covariance

    def colour_covariance(self) -> np.ndarray:
        """Covariance of RGB over the training set in grey levels squared, float64 [3, 3].

        Raises:
          DataError: as in `normalization`.
        """
        return self._pixel_statistics(self.choices.crops.resize).covariance

    def alone(self, content: bytes | np.ndarray) -> "Data":
        """The same recipe with one image as its whole training set.

        Pixel statistics remain those of the training set.

        Args:
          content: a file's bytes, or uint8 [height, width, 3].

        Raises:
          DataError: they are needed, and cannot be computed.
        """
        if self.shifts_colours:
            self.colour_covariance()  # known from here on, also to the copy
        one = sources.Examples(1, lambda row: (content, 0), lambda row: "the image", "one")
        dataset = dataclasses.replace(self.dataset, splits={"train": one}, prepared=None)
        return dataclasses.replace(self, dataset=dataset)

    def pixels_digest(self, split: str, side: int) -> str:
        """Changes with the pixels that `evaluation` gives of squares of this side.

        Raises:
          DataError: there is no such split.
        """
        return pixels_digest(_as_rescaled(self.dataset, split, side), side, self.choices.reading)

    def normalization(self, images: Images) -> dict[str, np.ndarray]:
        """What these images are normalised with: (pixel - mean) / deviation.

        A mean of the training set is computed once and kept; the training split is opened for
        it if it was not.

        Returns:
          float32 `mean` [square, square, 3] of side + 2 pad pixels, and `deviation` [3].

        Raises:
          DataError: there is no training set to compute it from, its images were prepared too
            small, or they cannot be read.
        """
        normalizer, mean = self.choices.normalizer, None
        if normalizer.of_training_set:
            mean = self._pixel_statistics(images.side).mean
        return normalization(normalizer, images.side, images.pad, mean)

    def _pixel_statistics(self, side: int) -> PixelStatistics:
        if side not in self._known:
            dataset = self._with_training()
            _check_side(dataset, side)
            examples, reading = _as_rescaled(dataset, "train", side), self.choices.reading
            self._known[side] = pixel_statistics(examples, side, self.cache_dir, reading)
        return self._known[side]

    def _with_training(self) -> Dataset:
        if "train" in self.dataset.splits:
            return self.dataset
        try:
            return self.open_training()
        except DataError as error:
            raise DataError(
                f"data.mean={self.choices.normalizer.mean} is computed from the training set: "
                f"{error}\nTo do without: --config.init_preprocessing, or "
                "--config.data.mean=values or none"
            ) from error


def _as_rescaled(dataset: Dataset, split: str, side: int) -> Examples:
    """The examples of a split, with a fingerprint that says if they are rescaled once more.

    Prepared images have the fingerprint of their source where the pixels are the same; those of
    another side are not.
    """
    examples, prepared = dataset.examples(split), dataset.prepared
    if prepared is None or not prepared.as_source or prepared.side == side:
        return examples
    other = sources.digest(examples.fingerprint, f"prepared at {prepared.side}")
    return dataclasses.replace(examples, fingerprint=other)


def _check_side(dataset: Dataset, side: int, *, larger: bool = True) -> None:
    """Looks at the size at which images were prepared, if they were.

    Raises:
      DataError: smaller than `side`; or larger, unless `larger`.
    """
    prepared = dataset.prepared
    if prepared is None:
        return
    if prepared.side < side or (prepared.side > side and not larger):
        raise DataError(
            f"{prepared.directory}: prepared with other settings: size is {prepared.side}, and "
            f"{side} is needed. Prepare it anew in another directory (--mode=prepare_data "
            f"--config.data.resize={side} --config.data.prepared_dir=DIR), or use the images "
            "themselves, without data.prepared_dir"
        )


def open_data(
    data: Any,
    cache_dir: Path,
    *,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
    report: Report = silent,
) -> Data:
    """Opens the dataset that a config's `data` fields name, prepared or not; says what is not used.

    Args:
      data: the fields; they are read here, and not afterwards.
      cache_dir, only, class_names: see `open_dataset`.
      report: called for every image that is repaired or left out.

    Raises:
      DataError: fields that contradict one another, or see `open_dataset` and `open_prepared`.
    """
    chosen = choices(data, report)
    return Data(
        _open(chosen, cache_dir, only, class_names),
        chosen,
        cache_dir,
        lambda: _open(chosen, cache_dir, "train"),
    )


def prepare_data(
    data: Any,
    cache_dir: Path,
    *,
    report: Report = silent,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Prepares the dataset of a config in `data.prepared_dir`; a sentence on what is there now.

    Args:
      data: the fields of the config.
      cache_dir: see `open_dataset`.
      report: called for every image that is repaired or left out.
      stopped: asked after every image whether to stop there.

    Raises:
      KeyboardInterrupt: `stopped`; what was written is kept.
      DataError: no directory, or see `open_dataset` and `prepare.write`.
    """
    chosen = choices(data, report)
    if not chosen.prepared_dir:
        raise DataError("preparing needs a directory to write to: --config.data.prepared_dir=DIR")
    dataset = _open_source(chosen, cache_dir)
    directory, crops = Path(chosen.prepared_dir), chosen.crops
    about = write(dataset, directory, chosen.prepared_as, chosen.reading, stopped)
    said = described(directory, about)
    if crops.rescales:
        said += " These crops rescale them once more: not the pixels of the images themselves."
    return said


def _open(
    chosen: Choices,
    cache_dir: Path,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    if not chosen.prepared_dir:
        return _open_source(chosen, cache_dir, only, class_names)
    return open_prepared(
        Path(chosen.prepared_dir),
        chosen.prepared_as,
        cache_dir,
        as_they_are=not chosen.crops.rescales,
        only=only,
    )


def _open_source(
    chosen: Choices,
    cache_dir: Path,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    dataset = open_dataset(
        chosen.name,
        chosen.directory,
        validation_examples=chosen.validation_examples,
        cache_dir=cache_dir,
        only=only,
        class_names=class_names,
    )
    for note in dataset.notes:
        warn(note, "note")
    return dataset
