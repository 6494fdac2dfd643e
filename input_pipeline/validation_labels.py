"""Finds labels for images stored without them: the first label file that fits the images."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline import label_files
from input_pipeline.errors import DataError, first_line
from input_pipeline.label_files import Challenge, Labels, class_map, those_there
from input_pipeline.names import listed, shown

__all__ = ["Challenge", "Matched", "check_known", "class_map", "find", "those_there"]

# Number of images in each split, by the year of the challenge.
COUNTS = {
    2010: {"validation": 50_000, "test": 150_000},
    2012: {"validation": 50_000, "test": 100_000},
}
# Synsets of the first validation images of 2012; they expose labels that are off by one place.
_KNOWN = {1: "n01751748", 2: "n09193705", 3: "n02105855", 4: "n04263257"}


class Matched(NamedTuple):
    """Labels that fit the images of a split.

    Attributes:
      labels: int32 [count], the label of each image.
      source: the file that the labels are from.
      notes: sentences on other files, and on labels whose images are missing.
    """

    labels: np.ndarray
    source: str
    notes: list[str]


def find(
    challenge: Challenge,
    split: str,
    places: Sequence[Path],
    names: np.ndarray,
    chosen: str | None = None,
) -> Matched | None:
    """Finds the labels of a split's images; None if there is no source of labels.

    Sources are tried in this order: a ground truth, Kaggle's solution, Caffe's list, the
    development kit. The first one that fits the images is used.

    Args:
      challenge: the challenge that the images are from.
      split: `validation` or `test`.
      places: directories that are searched, and the folders in them.
      names: bytes [count], of the images' files.
      chosen: the file to take, in place of a search.

    Raises:
      DataError: there are sources, but none can be read and fits the images.
    """
    if chosen:
        path = Path(chosen)
        if not path.is_file():
            raise DataError(f"data.validation_labels={chosen}: there is no such file")
    tried: list[tuple[str, DataError]] = []
    for path in [Path(chosen)] if chosen else those_there(challenge, split, places):
        try:
            labels = label_files.read(path, challenge, split, [path.parent, *places])
            if labels is None:
                continue
            found = _apply(labels, names, challenge, split)
        except DataError as error:
            tried.append((shown(path), error))
            continue
        notes = [f"{said}: not used: {_reason(said, error)}" for said, error in tried]
        return Matched(found, labels.source, [*notes, *_doubts(labels, names, challenge, split)])
    if not tried:
        return None
    first, others = tried[0][1], listed([said for said, _ in tried[1:]])
    raise DataError(f"{first} (others do not fit either: {others})") if others else first


def _reason(said: str, error: DataError) -> str:
    return re.sub(rf"^{re.escape(said)}(/[^:]*)?: ", "", first_line(error))


def _doubts(labels: Labels, names: np.ndarray, challenge: Challenge, split: str) -> list[str]:
    """Sentences on labels whose images are missing."""
    said = []
    if len(labels.of) > len(names):
        said.append(
            f"{labels.source}: labels of {len(labels.of):,} images; {len(names):,} of them are "
            "there"
        )
    known = _KNOWN.items() if (challenge.year, split) == (2012, "validation") else ()
    for number, synset in known:
        name = f"ILSVRC2012_val_{number:08d}"
        told = challenge.synsets[labels.of[name]] if name in labels.of else synset
        if told != synset:
            said.append(
                f"{labels.source}: {name} is {synset} in the challenge, and {told} here: are "
                "its labels off by a place, or of other images?"
            )
            break
    return said


def _apply(labels: Labels, names: np.ndarray, challenge: Challenge, split: str) -> np.ndarray:
    """The label of each image, int32 [count].

    Args:
      labels: from one source.
      names: bytes [count], of the files.

    Raises:
      DataError: the labels are of other images or of another number of images, or are known to be
        wrong.
    """
    expected, count = COUNTS[challenge.year][split], len(names)
    if labels.lines not in (0, expected, count):
        raise DataError(
            f"{labels.source}: {count:,} images, and {labels.lines:,} lines (the {split} set has "
            f"{expected:,} images): labels would be off by a place. Get it again"
        )
    stems = [os.path.splitext(shown(name))[0] for name in names.tolist()]  # noqa: PTH122
    found = [labels.of.get(stem, -1) for stem in stems]
    strange = [shown(name) for name, label in zip(names.tolist(), found, strict=True) if label < 0]
    if strange and labels.lines not in (0, expected):
        raise DataError(
            f"{labels.source}: {labels.lines:,} lines for {count:,} images, whose numbers are not "
            f"1 to {count:,} ({listed(strange, 3)}): which line is whose cannot be told. Get the "
            f"whole of it, {expected:,} lines"
        )
    if strange:
        few = listed([str(name) for name in labels.of], 2)
        raise DataError(
            f"{labels.source}: no label for {len(strange):,} of {count:,} images "
            f"({listed(strange, 3)}); it has those of {len(labels.of):,}: {few}"
        )
    all_labels = np.array(found, np.int32)
    if split == "validation":
        check_known(labels.source, names, all_labels, challenge)
    return all_labels


def check_known(source: str, names: np.ndarray, labels: np.ndarray, challenge: Challenge) -> None:
    """Checks the labels of the first validation images of 2012 against the known ones.

    Args:
      source: of the labels, for messages.
      names: bytes [count], of the images' files.
      labels: int32 [count].

    Raises:
      DataError: a label differs from the known one.
    """
    for number, synset in _KNOWN.items() if challenge.year == 2012 else ():
        name = f"ILSVRC2012_val_{number:08d}"
        for row in np.flatnonzero(np.strings.startswith(names, f"{name}.".encode())):
            told = challenge.synsets[labels[row]]
            if told != synset:
                raise DataError(
                    f"{source}: {name} is {synset} in the challenge, and {told} here: its labels "
                    "are off by a place, count from 1, or are of other images. Get it again, or "
                    "move it elsewhere"
                )
