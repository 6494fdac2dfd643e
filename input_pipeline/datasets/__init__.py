"""Datasets by name: their splits, what is held out, and what is wrong with a directory.

A dataset that TFDS prepares needs nothing here. Any other is a file beside this one, whose
function `find` says what there is, and a line in `FINDERS`.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline import folders, order, sources
from input_pipeline.datasets import digits, imagenet, own_folders, tfds_directories
from input_pipeline.datasets.layout import Asked, Found
from input_pipeline.errors import DataError
from input_pipeline.sources import Examples

# Datasets with code of their own; any other name is one that TFDS prepared.
FINDERS: dict[str, Callable[[Asked], Found]] = {
    "digits": digits.find,
    "folder": own_folders.find,
    "imagenet2012": imagenet.find,
}
# Held out of train where a dataset has no validation split.
VALIDATION_EXAMPLES = {"cifar10": 5000, "mnist": 5000, "digits": 360}
# In place of a split's name: the one that results are reported on.
REPORTED = "reported"


class Prepared(NamedTuple):
    """Images that were written at a fixed size.

    Attributes:
      directory: where.
      side: pixels of their shorter side.
      as_source: at that size they are the pixels of the images that they were made from, bit
        for bit, and have their fingerprint.
    """

    directory: Path
    side: int
    as_source: bool


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled image dataset, or the part of it that was asked for.

    Attributes:
      name: the name it was asked for by.
      splits: of `train`, `validation` and, where there is a labelled one, `test`, those that
        are there and were asked for.
      class_names: name of each label.
      absent: why there is no such split, by its name.
      notes: sentences on what is not used, and on how labels are ordered where that is a choice.
      prepared: where images come at a fixed size; None for the images themselves.
    """

    name: str
    splits: dict[str, Examples]
    class_names: tuple[str, ...]
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    prepared: Prepared | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with the fingerprint of any split, so with what is held out, too."""
        return sources.digest(*(f"{k}:{v.fingerprint}" for k, v in sorted(self.splits.items())))

    def examples(self, split: str) -> Examples:
        """The examples of a split.

        Raises:
          DataError: there is no such split.
        """
        if split not in self.splits:
            raise _no_split(self.name, split, self.splits, self.absent)
        return self.splits[split]

    @property
    def evaluation_split(self) -> str:
        """The split that results are reported on: the labelled test split where there is one."""
        return "test" if "test" in self.splits else "validation"


def _no_split(name: str, split: str, there: Iterable[str], absent: dict[str, str]) -> DataError:
    why = f": {absent[split]}" if split in absent else ""
    return DataError(
        f"{name} has no split {split!r}{why}; evaluation.split can be {', '.join(there)}"
    )


def open_dataset(
    name: str,
    directory: str | None,
    *,
    validation_examples: int | None = None,
    cache_dir: Path | None = None,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Opens a dataset; reads its index but no images.

    Args:
      name: `imagenet2012` (an ILSVRC folder tree or a TFDS directory), `folder` (a
        tree of one's own classes), `digits` (embedded), or the name of a labelled
        image dataset that TFDS prepared in `directory`: NAME, NAME/CONFIG, NAME/CONFIG/VERSION
        or NAME:VERSION.
      directory: where it is; not needed for `digits`.
      validation_examples: how many to hold out of train where there is no validation
        split; by default 5,000 of CIFAR-10 and MNIST, 360 of the digits and a
        tenth of anything else (of ImageNet none).
      cache_dir: where indices are kept; by default `default_cache_dir()`.
      only: the one split to open, or `REPORTED`; None opens all there are. What is not opened
        may be damaged or absent.
      class_names: of the network that is to be trained on or evaluated, in the order of its
        labels; None where it has none yet. Own classes keep this order if they are the same,
        whatever order they would be given; without a training set they may be some of these.

    Raises:
      DataError: nothing there, or not in a layout that is known; the message says
        what was looked for.
    """
    cache_dir = cache_dir or default_cache_dir()
    with folders.readable():
        asked = Asked(name, directory, cache_dir, class_names, evaluated=only is not None)
        found = FINDERS.get(name, tfds_directories.find)(asked)
    splits = dict(found.splits)
    if "validation" in splits:
        if validation_examples is not None:
            raise DataError(
                f"data.validation_examples={validation_examples}: {name} has a validation split "
                "of its own; leave that field out"
            )
    elif "train" in splits and (
        tfds_directories.base_name(name) != "imagenet2012" or validation_examples is not None
    ):
        train = functools.cache(splits["train"])
        for split in ("train", "validation"):
            splits[split] = functools.partial(_hold_out, name, train, validation_examples, split)
    if only == REPORTED:
        only = "test" if "test" in splits else "validation"
    if only is not None and only not in splits:
        raise _no_split(name, only, list(splits), found.absent)
    opened = {split: splits[split]() for split in splits if only in (None, split)}
    notes = [*found.notes, *(note for examples in opened.values() for note in examples.notes)]
    return Dataset(name, opened, found.class_names, found.absent, tuple(dict.fromkeys(notes)))


def default_cache_dir() -> Path:
    """`vision_models` under $XDG_CACHE_HOME, or under ~/.cache; without a home under ./.cache."""
    chosen = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")  # noqa: PTH111
    return Path(".cache" if chosen.startswith("~") else chosen) / "vision_models"


def _hold_out(
    name: str, opened: Callable[[], Examples], validation_examples: int | None, split: str
) -> Examples:
    """One split, `train` or `validation`, of the training examples that `opened` gives."""
    train, held = opened(), validation_examples
    if held is None:
        base = tfds_directories.base_name(name)
        held = VALIDATION_EXAMPLES.get(base, max(1, train.count // 10))
    if not 0 < held < train.count:
        raise DataError(
            f"data.validation_examples={held}: hold out between 1 and {train.count - 1} of the "
            f"{train.count} training examples of {name}"
        )
    permutation = order.fixed_order(train.count)
    rows = permutation[held:] if split == "train" else permutation[:held]
    return sources.subset(train, np.sort(rows))
