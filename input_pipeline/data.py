"""An opened dataset with the settings of a config: batches, labels, sizes, normalisation."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline import augment, batches, order, sources
from input_pipeline.batches import Batch, Planned
from input_pipeline.datasets import Dataset, division, open_dataset, with_chosen
from input_pipeline.errors import DataError, UnreadableError
from input_pipeline.from_config import Choices, choices
from input_pipeline.normalization import normalization, of_any_shape
from input_pipeline.photographs import Images, decoded
from input_pipeline.pixel_statistics import PixelStatistics, pixel_statistics, pixels_digest
from input_pipeline.prepare import write
from input_pipeline.prepared import described, open_prepared
from input_pipeline.report import Report, silent, warn
from input_pipeline.sizes import image_sizes, rescaled_sizes
from input_pipeline.sources import Examples


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """An opened dataset with the settings of a config; made by `open_data`.

    Attributes:
      dataset: the splits that were asked for.
      choices: the config's settings.
      cache_dir: directory in which pixel statistics are cached.
      open_training: opens the training split if a mean has to be computed from it.
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
          share: (number, shares): the number of this process's share of every batch, and how many
            shares there are.

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
            epoch_of=order.balanced_order(self._labels()) if chosen.balanced else order.epoch_order,
        )

    def class_counts(self) -> np.ndarray:
        """The number of training examples of each class, int64 [classes].

        Raises:
          DataError: there is no training split, or the labels cannot be read.
        """
        return np.bincount(self._labels(), minlength=len(self.class_names))

    def _labels(self) -> np.ndarray:
        return sources.labels_of(self.examples("train"), self.cache_dir)

    def evaluation(
        self,
        split: str,
        images: Images,
        *,
        batch_size: int,
        share: tuple[int, int] = (0, 1),
        start: int = 0,
        plan: Sequence[Planned] | None = None,
    ) -> Generator[Batch, None, None]:
        """One pass over a split, every example once; see `evaluation_batches`, `whole_batches`.

        Args:
          split: name of the split.
          images: the form in which they are needed.
          batch_size: examples in a batch over all processes.
          share: as in `training`.
          start: the first batch; starting anywhere costs the same.
          plan: for whole images, the images of each batch, planned from their `sizes`.

        Raises:
          DataError: there is no such split, or its images were prepared too small.
        """
        examples = self.examples(split)
        _check_images(self.dataset, images)
        if images.whole:
            assert plan is not None, "whole images come in planned batches"
            return batches.whole_batches(
                examples,
                images.side,
                plan,
                batch_size=batch_size,
                reading=self.choices.reading,
                start=start,
                share=share,
            )
        return batches.evaluation_batches(
            examples,
            augment.central_square(images.side, images.pad),
            batch_size=batch_size,
            reading=self.choices.reading,
            start=start,
            share=share,
        )

    def example(
        self, split: str, index: int, forms: Sequence[Images]
    ) -> tuple[list[np.ndarray], int] | None:
        """One example, read once, in several forms; None if it is unreadable.

        Returns:
          For each form the image as `evaluation` gives it, uint8 [height, width, 3]; and the label.
          Errors are those of `evaluation`.
        """
        examples = self.examples(split)
        for images in forms:
            _check_images(self.dataset, images)
        try:
            content, label = examples.read(index)
            exact = self.choices.reading.exact
            return [decoded(content, images, exact=exact) for images in forms], label
        except UnreadableError as error:
            batches.leave_out(examples, index, error, self.choices.reading)
            return None

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
        """The same recipe with one image, without boxes, as its whole training set.

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
        return dataclasses.replace(self.without_boxes(), dataset=dataset)

    def without_boxes(self) -> "Data":
        """The same dataset without boxes in its batches, which a split may not have."""
        reading = dataclasses.replace(self.choices.reading, boxes=None)
        return dataclasses.replace(self, choices=dataclasses.replace(self.choices, reading=reading))

    def sizes(self, split: str, images: Images) -> np.ndarray:
        """Height and width of the rescaled images of a split, as `evaluation` yields them.

        They are read once and cached; an image whose header has its size is not decoded.

        Returns:
          int32 [count, 2].

        Raises:
          DataError: there is no such split, its images were prepared too small or as squares, or
            they cannot be read.
        """
        examples, prepared = self.examples(split), self.dataset.prepared
        _check_images(self.dataset, images)
        of = "" if prepared is None else f"prepared at {prepared.side}"
        found = image_sizes(examples, self.cache_dir, self.choices.reading.parallel, of)
        return rescaled_sizes(found, images.side)

    def pixels_digest(self, split: str, images: Images) -> str:
        """A hash that changes with the pixels that `evaluation` yields.

        Raises:
          DataError: there is no such split.
        """
        examples = _as_rescaled(self.dataset, split, images.side)
        return pixels_digest(examples, images.side, self.choices.reading, whole=images.whole)

    def normalization(self, images: Images) -> dict[str, np.ndarray]:
        """The arrays that normalise these images: (pixel - mean) / deviation.

        A mean of the training set is computed once and cached; the training split is opened for
        it if necessary.

        Returns:
          float32 `mean` [square, square, 3], where square = side + 2 pad, or [3] for whole images;
          and `deviation` [3].

        Raises:
          DataError: there is no training set to compute the mean from, its images were prepared
            too small, or they cannot be read.
        """
        normalizer, mean = self.choices.normalizer, None
        if normalizer.of_training_set:
            # A mean colour hardly depends on the size; that of training may be cached already.
            side = self.choices.crops.resize if images.whole else images.side
            mean = self._pixel_statistics(side).mean
        if images.whole:
            return of_any_shape(normalizer, mean)
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
    """The examples of a split, with a fingerprint of their own if they are rescaled again.

    Prepared images have the fingerprint of their source if the pixels are the same, which they are
    not at another side.
    """
    examples, prepared = dataset.examples(split), dataset.prepared
    if prepared is None or not prepared.as_source or prepared.side == side:
        return examples
    other = sources.digest(examples.fingerprint, f"prepared at {prepared.side}")
    return dataclasses.replace(examples, fingerprint=other)


def _check_images(dataset: Dataset, images: Images) -> None:
    """Checks that prepared images can be used in the form that is asked for.

    Raises:
      DataError: they are too small, or squares although whole images are needed.
    """
    prepared = dataset.prepared
    if images.whole and prepared is not None and not prepared.whole:
        raise DataError(
            f"{prepared.directory}: prepared as central squares, and this protocol needs whole "
            f"images. {_prepare_anew(images.side, whole=True)}"
        )
    _check_side(dataset, images.side, whole=images.whole)


def _prepare_anew(side: int, *, whole: bool) -> str:
    crop = "--config.data.augment.crop=image " * whole
    return (
        f"Prepare it anew in another directory (--mode=prepare_data {crop}"
        f"--config.data.resize={side} --config.data.prepared_dir=DIR), or use the images "
        "themselves, without data.prepared_dir"
    )


def _check_side(dataset: Dataset, side: int, *, larger: bool = True, whole: bool = False) -> None:
    """Checks the size at which images were prepared, if they were.

    Raises:
      DataError: they are smaller than `side`; or larger, unless `larger` permits it.
    """
    prepared = dataset.prepared
    if prepared is None:
        return
    if prepared.side < side or (prepared.side > side and not larger):
        raise DataError(
            f"{prepared.directory}: prepared with other settings: size is {prepared.side}, and "
            f"{side} is needed. {_prepare_anew(side, whole=whole)}"
        )


def open_data(
    data: Any,
    cache_dir: Path,
    *,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
    report: Report = silent,
) -> Data:
    """Opens the dataset that a config's `data` fields name, prepared or not; prints its notes.

    Args:
      data: the fields; they are not read after this call.
      cache_dir, only, class_names: see `open_dataset`.
      report: called for every image that is repaired or left out.

    Raises:
      DataError: fields contradict each other; or as in `open_dataset` and `open_prepared`.
    """
    chosen = choices(data, report)
    return Data(
        _said(open_chosen(chosen, cache_dir, only, class_names)),
        chosen,
        cache_dir,
        lambda: _said(open_chosen(chosen, cache_dir, "train")),
    )


def prepare_data(
    data: Any,
    cache_dir: Path,
    *,
    report: Report = silent,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Prepares the dataset of a config in `data.prepared_dir`; returns a summary of it.

    Args:
      data: the fields of the config.
      cache_dir: see `open_dataset`.
      report: called for every image that is repaired or left out.
      stopped: called after every image; True stops there.

    Raises:
      KeyboardInterrupt: `stopped` returned True; the shards written so far are kept.
      DataError: `data.prepared_dir` is not set; or as in `open_dataset` and `prepare.write`.
    """
    chosen = choices(data, report)
    if not chosen.prepared_dir:
        raise DataError("preparing needs a directory to write to: --config.data.prepared_dir=DIR")
    everything = dataclasses.replace(
        chosen.chosen, classes=(), train_examples=None, train_examples_per_class=None
    )
    dataset = _said(_open_source(dataclasses.replace(chosen, chosen=everything), cache_dir))
    directory, crops = Path(chosen.prepared_dir), chosen.crops
    about = write(dataset, directory, chosen.prepared_as, chosen.reading, stopped)
    said = described(directory, about)
    if crops.rescales:
        said += " These crops rescale them once more: not the pixels of the images themselves."
    return said


def _said(dataset: Dataset) -> Dataset:
    """Prints the notes of a dataset and returns it."""
    for note in dataset.notes:
        warn(note, "note")
    return dataset


def open_chosen(
    chosen: Choices,
    cache_dir: Path,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Opens the dataset of a config, prepared or not.

    Args:
      chosen: the config's settings.
      cache_dir, only, class_names: see `open_dataset`.

    Raises:
      DataError: see `open_dataset` and `open_prepared`.
    """
    if not chosen.prepared_dir:
        return _open_source(chosen, cache_dir, only, class_names)
    division.check(chosen.chosen, chosen.validation_examples)
    dataset = open_prepared(
        Path(chosen.prepared_dir),
        chosen.prepared_as,
        cache_dir,
        as_they_are=not chosen.crops.rescales,
        only=only,
    )
    return with_chosen(dataset, chosen.chosen, cache_dir)


def _open_source(
    chosen: Choices,
    cache_dir: Path,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    return open_dataset(
        chosen.name,
        chosen.directory,
        validation_examples=chosen.validation_examples,
        chosen=chosen.chosen,
        cache_dir=cache_dir,
        only=only,
        class_names=class_names,
        validation_labels=chosen.validation_labels,
    )
