"""Turns a config's `data` fields into dataclasses, once, when the dataset is opened."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from input_pipeline import augment
from input_pipeline.augment import Colours, Crops
from input_pipeline.batches import Reading
from input_pipeline.box_views import Wanted
from input_pipeline.datasets import Chosen, default_cache_dir
from input_pipeline.errors import DataError
from input_pipeline.normalization import Normalizer
from input_pipeline.report import Report, silent

T = TypeVar("T")


def cache_dir_of(data: Any) -> Path:
    """The directory in which mean images, indices and compiled programs are cached."""
    return Path(data.cache_dir) if data.cache_dir else default_cache_dir()


@dataclasses.dataclass(frozen=True)
class Choices:
    """The `data` fields of a config.

    Attributes:
      name, directory, validation_examples, validation_labels, chosen: see `open_dataset`.
      prepared_dir: directory of a prepared dataset, to be read or written; None to read the
        original images.
      prepared_as: the properties that a prepared dataset needs; see `prepared_as`.
      crops, colours: the augmentation in training.
      normalizer: which mean is subtracted.
      reading: how images are read.
      balanced: whether all classes occur equally often in training.
    """

    name: str
    directory: str | None
    validation_examples: int | None
    validation_labels: str | None
    chosen: Chosen
    prepared_dir: str | None
    prepared_as: dict[str, Any]
    crops: Crops
    colours: Colours
    normalizer: Normalizer
    reading: Reading
    balanced: bool


def choices(data: Any, report: Report = silent) -> Choices:
    """Reads and checks the `data` fields of a config.

    Args:
      data: the fields.
      report: called for every image that is repaired or left out.

    Raises:
      DataError: see `augment.check`; or a mean image that does not fit the kind of crops.
    """
    crops = _by_name(
        Crops,
        data.augment,
        resize=data.resize,
        crop=data.crop,
        pad=data.pad,
        kind=data.augment.crop,
    )
    augment.check(crops)
    normalizer = _by_name(Normalizer, data)
    _check_mean(normalizer, crops)
    return Choices(
        name=data.name,
        directory=data.dir,
        validation_examples=data.validation_examples,
        validation_labels=data.validation_labels,
        chosen=_by_name(Chosen, data),
        prepared_dir=data.prepared_dir,
        prepared_as=prepared_as(data),
        crops=crops,
        colours=_by_name(Colours, data.augment),
        normalizer=normalizer,
        reading=Reading(
            exact=data.decode == "exact",
            unreadable=data.unreadable,
            report=report,
            threads=data.threads,
            boxes=_by_name(Wanted, data.boxes) if data.boxes.count else None,
        ),
        balanced=data.sampling == "balanced",
    )


def prepared_as(data: Any) -> dict[str, Any]:
    """The properties that a prepared dataset needs to be used with a config.

    Returns:
      `name`, `validation_examples`, `folds` (None, or the number of folds, the fold and the seed
      of the division), `size` (pixels of the shorter side: `resize`, or the largest of
      `scale_range` if that is larger), `image` (`whole`, or `square` if all crops lie in the
      central square), `format`, `quality` (1 to 100 for JPEG, else None) and `decode`.
    """
    chosen = data.prepare
    return {
        "name": data.name,
        "validation_examples": data.validation_examples,
        "folds": _by_name(Chosen, data).folding,
        "size": max(data.resize, *(data.augment.scale_range or (0,))),
        "image": "whole" if data.augment.crop in ("image", "area") else "square",
        "format": chosen.format,
        "quality": chosen.quality if chosen.format == "jpeg" else None,
        "decode": data.decode,
    }


def _by_name(made: type[T], fields: Any, /, **given: Any) -> T:
    """Makes a dataclass from the fields named like its attributes, except for those in `given`."""
    names = {field.name for field in dataclasses.fields(made)} - given.keys()  # type: ignore[arg-type]
    found = {name: fields[name] for name in names}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    return made(**given, **values)


def _check_mean(normalizer: Normalizer, crops: Crops) -> None:
    if normalizer.mean == "image" and (crops.kind in ("image", "area") or crops.scale_range):
        raise DataError(
            "data.mean=image is the mean under each crop of the central square; with "
            f"data.augment.crop={crops.kind}"
            + (" and scale_range" if crops.scale_range else "")
            + " choose data.mean=image_center or channel"
        )
