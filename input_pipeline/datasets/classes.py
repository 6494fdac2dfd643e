"""Some classes of a dataset as a dataset of their own."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from input_pipeline import sources
from input_pipeline.boxes import Boxes
from input_pipeline.errors import DataError
from input_pipeline.sources import Examples


def check(classes: Sequence[int], count: int, name: str) -> None:
    """Checks that classes can be chosen of a dataset.

    Args:
      classes: labels in the dataset; () for all of it.
      count: how many classes the dataset has.
      name: of the dataset.

    Raises:
      DataError: a class is not there or there twice, or it is the only one.
    """
    said = f"data.classes={','.join(map(str, classes))}"
    absent = [label for label in classes if not 0 <= label < count]
    if absent:
        raise DataError(
            f"{said}: {name} has no class {absent[0]}; its {count} classes are 0 to {count - 1}"
        )
    if len(set(classes)) < len(classes):
        raise DataError(f"{said}: a class is there twice")
    if len(classes) == 1:
        raise DataError(f"{said}: one class leaves nothing to tell apart; give two or more")


def chosen(examples: Examples, classes: Sequence[int], count: int, cache_dir: Path) -> Examples:
    """The examples of some classes, in the order they had, labelled by their place in `classes`.

    Objects of other classes in annotated images have the label -1.

    Args:
      examples: of a split, whose labels are known.
      classes: labels, as `check` takes them; () for all, as they are.
      count: how many classes the dataset has.
      cache_dir: where labels are kept.

    Raises:
      DataError: the labels cannot be read, or no example is of these classes.
    """
    if not classes:
        return examples
    # The last place is for the label -1, of objects that are of no class.
    label_of = np.full(count + 1, -1, np.int32)
    label_of[list(classes)] = np.arange(len(classes))
    labels = label_of[sources.labels_of(examples, cache_dir)]
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise DataError(f"data.classes={','.join(map(str, classes))}: a split has none of these")
    some = sources.subset(examples, rows)
    boxes = some.boxes

    def read(row: int) -> tuple[bytes | np.ndarray, int]:
        content, label = some.read(row)
        return content, int(label_of[label])

    def relabelled(of: Callable[[int], Boxes], row: int) -> Boxes:
        found = of(row)
        return found._replace(labels=label_of[found.labels])

    return dataclasses.replace(
        some,
        read=read,
        fingerprint=sources.digest(some.fingerprint, "classes", *map(str, classes)),
        labels=lambda: labels[rows],
        boxes=None if boxes is None else lambda row: relabelled(boxes, row),
    )
