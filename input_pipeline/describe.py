"""What a directory holds, as far as training, evaluation and localization ask for it, in words."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline import folders, names, sources
from input_pipeline.annotations import LOOKED_FOR
from input_pipeline.data import open_chosen
from input_pipeline.datasets import Dataset, tfds_directories
from input_pipeline.errors import DataError
from input_pipeline.from_config import choices
from input_pipeline.names import listed
from input_pipeline.prepared import ABOUT, load_about, open_prepared
from input_pipeline.sources import Examples

_SPLITS = tuple(names.SPLITS)


def open_any(data: Any, cache_dir: Path, *, named: bool) -> Dataset:
    """Opens what a config's `data` fields name, as much of it as can be opened.

    A split that cannot be opened is in `absent`, with the error. Without a name the dataset is
    recognised: images that were prepared, a dataset of TFDS, ImageNet, or else classes of one's
    own.

    Args:
      data: the fields.
      cache_dir: see `open_dataset`.
      named: `data.name` is meant; else it is to be found out.

    Raises:
      DataError: nothing can be opened.
    """
    if named:
        return _open_all(data, cache_dir)
    if not (data.prepared_dir or data.dir):
        raise DataError(
            "what is to be described? --config.data.dir=DIR, or --config.data.name=digits"
        )
    directory = Path(data.prepared_dir or data.dir)
    with folders.readable():
        prepared = bool(data.prepared_dir) or (directory / ABOUT).is_file()
    if not prepared:
        return _recognised(data, cache_dir)
    about = load_about(directory)
    wanted = {} if about is None else {"folds": None} | about["settings"]
    return open_prepared(directory, wanted, cache_dir, as_they_are=True)


def _recognised(data: Any, cache_dir: Path) -> Dataset:
    tried = data.copy_and_resolve_references()
    with folders.readable():
        of_tfds = tfds_directories.names_in(Path(data.dir))
    if len(of_tfds) > 1:
        raise DataError(
            f"{data.dir}: holds {listed(of_tfds)}, as TFDS prepares them; name one: "
            f"--config.data.name={of_tfds[0]}"
        )
    if of_tfds:
        tried.name = of_tfds[0]
        return _open_all(tried, cache_dir)
    reasons: list[str] = []
    for name in ("imagenet2012", "folder"):
        tried.name = name
        try:
            found = _open_all(tried, cache_dir)
        except DataError as error:
            reasons.append(str(error).splitlines()[0])
            continue
        if reasons and any(re.match(r"n\d{8}", of) for of in found.class_names):
            why = f"not taken for ImageNet: {reasons[0]}"
            found = dataclasses.replace(found, notes=(why, *found.notes))
        return found
    raise DataError("\n".join(dict.fromkeys(reasons)))


def _open_all(data: Any, cache_dir: Path) -> Dataset:
    """All splits, or else those that can be opened and have labels.

    Raises:
      DataError: there is none; it is the error of all splits together.
    """
    chosen = choices(data)
    try:
        return open_chosen(chosen, cache_dir)
    except DataError as error:
        first = error
    opened: list[Dataset] = []
    faults: dict[str, str] = {}
    for split in _SPLITS:
        try:
            alone = open_chosen(chosen, cache_dir, only=split)
            labels = sources.labels_of(alone.examples(split), cache_dir)
        except DataError as error:
            faults[split] = str(error)
            continue
        if (labels < 0).all():  # a split that is opened only if it is asked for by name
            faults[split] = alone.absent.get(split, "its images have no labels")
        else:
            opened.append(alone)
    if not opened:
        raise first
    splits = {split: of for dataset in opened for split, of in dataset.splits.items()}
    notes = dict.fromkeys(note for dataset in opened for note in dataset.notes)
    return dataclasses.replace(
        opened[0], splits=splits, absent=faults | opened[0].absent, notes=tuple(notes)
    )


def described(dataset: Dataset, cache_dir: Path) -> list[str]:
    """Lines on what a dataset holds and what it lacks.

    Args:
      dataset: as it was opened.
      cache_dir: where labels are kept.
    """
    counts = {
        split: np.bincount(
            sources.labels_of(dataset.splits[split], cache_dir), minlength=len(dataset.class_names)
        )
        for split in _SPLITS
        if split in dataset.splits
    }
    lines = [
        f"recognised  {dataset.layout} (data.name={dataset.name})",
        f"labels      {dataset.labels_from}",
        f"classes     {len(dataset.class_names):,}: {listed(dataset.class_names)}",
        "",
        *_table(dataset, counts),
        "",
    ]
    boxes = {split: of for split in counts if (of := _boxes(dataset.splits[split])) is not None}
    for split, (images, drawn) in boxes.items():
        said = f"{split}: {images:,} images have {drawn:,} boxes"
        lines.append(f"boxes       {said} ({dataset.splits[split].boxes_from})")
    ignored = dataset.ignored + sum(of.ignored for of in dataset.splits.values())
    if ignored:
        lines.append(f"ignored     {ignored:,} hidden files, archives and files of systems")
    lines += [f"note        {note}" for note in dataset.notes]
    missing = {
        "training": _for_training(dataset, counts),
        "evaluation": _for_evaluation(dataset),
        "localization": _for_localization(dataset, boxes),
    }
    for purpose, faults in missing.items():
        lines.append(f"for {purpose}: " + ("; ".join(faults) or "nothing is missing"))
    return lines


def _table(dataset: Dataset, counts: dict[str, np.ndarray]) -> list[str]:
    """A line a split: images, classes, images of the least, the median and the largest class."""
    rows = [("split", "images", "classes", "images per class: least", "median", "most")]
    for split, of in counts.items():
        there = np.flatnonzero(of)
        least, most = there[np.argmin(of[there])], np.argmax(of)
        rows.append(
            (
                split,
                f"{of.sum():,}",
                f"{len(there):,}",
                f"{of[least]:,} ({dataset.class_names[least]})",
                f"{np.median(of[there]):,g}",
                f"{of[most]:,} ({dataset.class_names[most]})",
            )
        )
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    absent = [split for split in _SPLITS if split not in counts]
    return lines + [f"{split:{widths[0]}}  none: {_reason(dataset, split)}" for split in absent]


def _reason(dataset: Dataset, split: str) -> str:
    return dataset.absent.get(split, "there is none")


def _for_training(dataset: Dataset, counts: dict[str, np.ndarray]) -> list[str]:
    faults = [f"no {split} split" for split in _SPLITS[:2] if split not in dataset.splits]
    if "train" in counts:
        empty = [dataset.class_names[n] for n in np.flatnonzero(counts["train"] == 0)]
        if empty:
            some = len(dataset.class_names) - len(empty)
            said = f"{len(empty):,} classes have no image in train: {listed(empty)}"
            if dataset.name.startswith("imagenet20") and some > 1:
                trees = dataset.layout.startswith("train: folders of synsets")
                own = f": --config.data.name=folder makes {some:,} classes" if trees else ""
                said += f" (a subset{own})"
            faults.append(said)
    return faults


def _boxes(examples: Examples) -> tuple[int, int] | None:
    """How many images have boxes, and how many there are; None without annotations.

    The validation examples that are held out of train have train's.
    """
    if examples.boxes is None:
        return None
    drawn = [len(examples.boxes(row).edges) for row in range(examples.count)]
    return sum(map(bool, drawn)), sum(drawn)


def _for_localization(dataset: Dataset, boxes: dict[str, tuple[int, int]]) -> list[str]:
    needed = dict.fromkeys(("train", dataset.evaluation_split))
    faults = [f"no boxes for {split}" for split in needed if not boxes.get(split, (0, 0))[0]]
    if len(faults) == len(needed) and not boxes:
        faults = [f"no boxes (looked for {LOOKED_FOR})"]
    return faults


def _for_evaluation(dataset: Dataset) -> list[str]:
    split = dataset.evaluation_split
    return [] if split in dataset.splits else [f"no {split} split"]
