"""Submission files of ILSVRC's second task: guesses with boxes, written and read.

ilsvrc: a line for each image, sorted by file name, with up to five groups of five numbers: a label,
xmin, ymin, xmax and ymax. A group of zeros is no guess, and keeps its place among the five.
kaggle: after the header ImageId,PredictionString a line for each image, with the same groups. A
label may also be the class's name, as in LOC_val_solution.csv.

Labels of ImageNet's classes are, for ilsvrc, the ILSVRC-2012 IDs 1 to 1000, and for kaggle the line
in LOC_synset_mapping.txt; see `evaluation.submission`. Other classes are numbered from 1 in the
order of the dataset's labels.
"""

import collections
import contextlib
import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

import files
from evaluation.errors import EvaluationError
from evaluation.localization.official import GUESSED, NO_GUESSES, Guesses, lines_of
from evaluation.submission import ilsvrc_ids
from evaluation.words import synsets

_HEADER = ("ImageId", "PredictionString")
_GROUP = 5


class Names(NamedTuple):
    """What the images and the classes of a dataset are called.

    Attributes:
      images: name of each image's file, with or without its directory.
      classes: name of each label.
    """

    images: Sequence[str]
    classes: Sequence[str]


def numbers_of_labels(class_names: Sequence[str], form: str) -> list[int]:
    """The number of each label in a file of the form `ilsvrc` or `kaggle`."""
    known = ilsvrc_ids()
    if not set(class_names) <= set(known):
        return list(range(1, len(class_names) + 1))
    if form == "ilsvrc":
        return [known[name] for name in class_names]
    line_of = {synset: number for number, synset in enumerate(sorted(synsets()), 1)}
    return [line_of[name] for name in class_names]


def write(path: Path, form: str, guesses: Sequence[Guesses], names: Names) -> None:
    """Writes a submission; boxes are rounded to whole pixels.

    Args:
      path: of the file; replaced atomically.
      form: `ilsvrc` or `kaggle`.
      guesses: of each image of `names`.
      names: of images and classes.

    Raises:
      EvaluationError: two images have the same file name.
      OSError: it cannot be written.
    """
    called, numbers = stems(names.images), numbers_of_labels(names.classes, form)
    lines = [] if form == "ilsvrc" else [",".join(_HEADER)]
    for row in _sorted(names.images):
        labels, boxes = (part[:GUESSED] for part in guesses[row])
        groups = [
            f"{numbers[int(label)]} {' '.join(map(str, np.rint(box).astype(int).tolist()))}"
            for label, box in zip(labels, boxes, strict=True)
        ]
        said = " ".join(groups)
        lines.append(said if form == "ilsvrc" else f"{called[row]},{said}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read(path: Path, names: Names) -> tuple[list[Guesses], list[str]]:
    """Reads a submission of either form, whichever it is.

    As in the kit, guesses beyond the fifth are ignored, and an image may have fewer. An image
    without a line has none.

    Args:
      path: of the file.
      names: of the images that it is about, and of their classes.

    Returns:
      The guesses of each image of `names`; and sentences on what is missing or not used.

    Raises:
      EvaluationError: the file cannot be read, or a line of it is wrong; the message names both.
    """
    lines = lines_of(path)
    first = lines[0].replace('"', "").replace(" ", "") if lines else ""
    of_row = (_of_kaggle if first == ",".join(_HEADER) else _of_ilsvrc)(path, lines, names)
    notes = []
    missing = [name for row, name in enumerate(names.images) if row not in of_row]
    if missing:
        notes.append(
            f"{path}: {len(missing):,} of {len(names.images):,} images have no line, which counts "
            f"as wrong ({missing[0]} is one)"
        )
    empty = {
        row: count
        for row, (_, boxes) in of_row.items()
        if (count := int((boxes[:, 2:] < boxes[:, :2]).any(axis=1).sum()))
    }
    if empty:
        notes.append(
            f"{path}: {sum(empty.values()):,} boxes end before they begin (xmax below xmin, or "
            f"ymax below ymin), and overlap nothing ({names.images[min(empty)]} has one)"
        )
    return [of_row.get(row, NO_GUESSES) for row in range(len(names.images))], notes


def _of_ilsvrc(path: Path, lines: list[str], names: Names) -> dict[int, Guesses]:
    if path.suffix.lower() == ".csv":
        raise EvaluationError(f"{path}, line 1: not the header {','.join(_HEADER)}")
    label_of = _label_of(names.classes, "ilsvrc", by_name=False)
    while len(lines) > len(names.images) and not lines[-1].strip():
        lines.pop()
    if len(lines) > len(names.images):
        raise EvaluationError(
            f"{path}, line {len(names.images) + 1}: the split has {len(names.images):,} images, "
            f"and the file {len(lines):,} lines"
        )
    return {
        row: _guesses(re.split(r"[\s,;]+", line.strip()), label_of, f"{path}, line {number}")
        for number, (row, line) in enumerate(zip(_sorted(names.images), lines, strict=False), 1)
    }


def _of_kaggle(path: Path, lines: list[str], names: Names) -> dict[int, Guesses]:
    row_of = {stem: row for row, stem in enumerate(stems(names.images))}
    label_of = _label_of(names.classes, "kaggle", by_name=True)
    found: dict[int, Guesses] = {}
    for number, fields in enumerate(csv.reader(lines), 1):
        where = f"{path}, line {number}"
        if number == 1 or not any(field.strip() for field in fields):
            continue
        if len(fields) != len(_HEADER):
            raise EvaluationError(f"{where}: {len(fields)} columns; there are {len(_HEADER)}")
        image = fields[0].strip()
        row = row_of.get(image)
        if row is None:
            raise EvaluationError(f"{where}: the split has no image {image[:80]!r}")
        if row in found:
            raise EvaluationError(f"{where}: a second line of {image}")
        found[row] = _guesses(fields[1].split(), label_of, where)
    return found


def _label_of(class_names: Sequence[str], form: str, *, by_name: bool) -> dict[str, int]:
    """What a file calls a class -> its label; -1 for ImageNet's classes not in the dataset."""
    labels = {str(n): label for label, n in enumerate(numbers_of_labels(class_names, form))}
    if set(class_names) <= set(ilsvrc_ids()):
        labels = {str(n): -1 for n in range(1, len(ilsvrc_ids()) + 1)} | labels
        others = ilsvrc_ids().keys() - set(class_names) if by_name else set()
        labels |= dict.fromkeys(others, -1)
    # Classes may be called by numbers: a number is then still that of `numbers_of_labels`.
    return {name: label for label, name in enumerate(class_names) if by_name} | labels


def _guesses(fields: list[str], label_of: dict[str, int], where: str) -> Guesses:
    """The guesses of one line; `where` names its file and number in messages."""
    fields = [field for field in fields if field]
    if len(fields) % _GROUP:
        raise EvaluationError(
            f"{where}: {len(fields)} numbers; a guess has {_GROUP}: label xmin ymin xmax ymax"
        )
    labels, boxes = [], []
    for begin in range(0, len(fields), _GROUP):
        said, *edges = fields[begin : begin + _GROUP]
        box = [_number(text, where) for text in edges]
        label = label_of.get(said)
        if label is None:
            with contextlib.suppress(EvaluationError):
                value = _number(said, where)
                label = label_of.get(str(int(value))) if value == int(value) else None
                if value == 0 and not any(box):
                    label = -1  # the kit fills up short lines so
        if label is None:
            raise EvaluationError(f"{where}: no class has the label {said[:40]}")
        labels.append(label)
        boxes.append(box)
    while labels and labels[-1] == -1 and not any(boxes[-1]):
        del labels[-1], boxes[-1]
    return Guesses(
        np.array(labels[:GUESSED], np.int64), np.array(boxes[:GUESSED], float).reshape(-1, 4)
    )


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise EvaluationError(f"{where}: {text[:40]!r} is not a number")
    return value


def _sorted(names: Sequence[str]) -> list[int]:
    """Positions of the images in the order of their file names."""
    return sorted(range(len(names)), key=stems(names).__getitem__)


def stems(names: Sequence[str]) -> list[str]:
    """File names without directories and suffixes, by which a submission goes.

    Raises:
      EvaluationError: two are the same.
    """
    found = [PurePosixPath(name.replace("\\", "/")).stem for name in names]
    if len(set(found)) < len(found):
        twice, count = collections.Counter(found).most_common(1)[0]
        raise EvaluationError(
            f"{count} images are called {twice}; a submission goes by the images' file names"
        )
    return found
