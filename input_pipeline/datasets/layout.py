"""What is known of a dataset before any image is listed, and folders that are named as splits."""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from input_pipeline import folders, names
from input_pipeline.errors import DataError
from input_pipeline.sources import Examples

# Words for parts of a dataset that are no split of ours -> the split that they may serve as.
_OTHER_PARTS = {
    "eval": "validation", "evaluation": "validation", "unlabeled": "", "unlabelled": "",
    "pred": "", "prediction": "", "predictions": "",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request to open a dataset.

    Attributes:
      name, directory, cache_dir, class_names: see `open_dataset`.
      evaluated: the dataset is for evaluation, not for training.
      validation_labels: see `open_dataset`.
    """

    name: str
    directory: str | None
    cache_dir: Path
    class_names: Sequence[str] | None
    evaluated: bool
    validation_labels: str | None = None

    def root(self, missing: str) -> Path:
        """The directory, checked to exist and not to be empty.

        Raises:
          DataError: it is missing or empty, or several are named; or none is named, and the
            message is `missing`.
        """
        named = names.paths_in(self.directory or "")
        if len(named) > 1:
            raise DataError(
                f"data.dir={self.directory}: {len(named)} directories; several are for classes of "
                f"your own (data.name=folder), not for {self.name}"
            )
        root = self.roots(missing)[0]
        if not root.is_dir():
            raise DataError(f"data.dir={self.directory}: a file, not a directory")
        return root

    def roots(self, missing: str) -> list[Path]:
        """The directories and files that are named, checked to exist and not to be empty.

        Raises:
          DataError: one is missing, empty or named twice; or none is named, and the message is
            `missing`.
        """
        named = names.paths_in(self.directory or "")
        if not named:
            raise DataError(missing)
        roots = [Path(text) for text in named]
        for text, root in zip(named, roots, strict=True):
            if not root.exists():
                raise DataError(f"data.dir={text}: there is no such directory")
            if root.is_dir() and not any(root.iterdir()):
                raise DataError(f"data.dir={text}: the directory is empty")
        places = [root.resolve() for root in roots]
        for text, place in zip(named, places, strict=True):
            if places.count(place) > 1:
                raise DataError(f"data.dir={self.directory}: {text} is named twice")
        return roots


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found of a dataset before any image is listed; see `Dataset`."""

    splits: dict[str, Callable[[], Examples]]
    class_names: tuple[str, ...]
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    # Splits without labels, whose labels are -1. They are opened only if asked for by name.
    unlabelled: dict[str, Callable[[], Examples]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    layout: str = ""
    labels_from: str = ""
    ignored: int = 0


class Listed(NamedTuple):
    """The part of a split that lies in one of several places.

    Attributes:
      where: directory or file, for messages.
      classes: names of its classes.
      opened: (class names in the order of their labels, cache directory) -> its examples.
      unlabelled: cache directory -> its examples with label -1, if it has no labels; None where
        class folders are the labels.
    """

    where: Path
    classes: Sequence[str]
    opened: Callable[[Sequence[str], Path], Examples]
    unlabelled: Callable[[Path], Examples] | None = None


class Place(NamedTuple):
    """What one of several places holds.

    Attributes:
      splits: the splits found, by name.
      absent, notes, layout, labels_from, ignored: see `Dataset`. Every split that is not in
        `splits` has a reason in `absent`.
      called: what defines the classes there, such as folders, for messages.
      looked_for: the end of the error if there are too few classes; `{base}` stands for the split.
    """

    splits: dict[str, Listed]
    absent: dict[str, str]
    notes: list[str]
    layout: str
    labels_from: str
    called: str
    looked_for: str
    ignored: int = 0


def split_folders(root: Path) -> dict[str, Path]:
    """Finds the folders of `root` that are named as splits, by split.

    Raises:
      DataError: two folders are named as the same split.
    """
    found: dict[str, Path] = {}
    for name, raw in folders.class_folders(root).items():
        split = names.split_of(name)
        if split in found:
            raise DataError(
                f"{root}: {found[split].name}/ and {name}/ are both the {split} split; "
                "leave one of them there"
            )
        if split is not None:
            found[split] = root / os.fsdecode(raw)
    return found


def called_like_splits(root: Path) -> dict[Path, str]:
    """The folders of `root` with a whole word for a part of a dataset in their names, in any case.

    Such are seg_train, testImages and val2017, and not trains or valley.

    Returns:
      Folder -> its split; empty for a part that is none.
    """
    found: dict[Path, str] = {}
    for name, raw in folders.class_folders(root).items():
        for word in re.split(r"[\W\d_]+|(?<=[a-z])(?=[A-Z])", name):
            split = names.split_of(word) or _OTHER_PARTS.get(word.casefold())
            if split is not None:
                found.setdefault(root / os.fsdecode(raw), split)
    return found


def unwrapped(directory: Path) -> Path:
    """The folder that holds what is in a directory: seg_train/seg_train of seg_train."""
    for _ in range(2):
        inside = list(folders.class_folders(directory).values())
        if len(inside) != 1 or folders.holds_images(directory):
            break
        deeper = directory / os.fsdecode(inside[0])
        if deeper.name != directory.name and not folders.class_folders(deeper):
            break  # a single class
        directory = deeper
    return directory


def absent_folders(root: Path, where: dict[str, Path]) -> dict[str, str]:
    """The reason for each split that is missing because no folder is named as it."""
    return {
        split: f"{root} has no folder {'/, '.join(words)}/"
        for split, words in names.SPLITS.items()
        if split not in where
    }


def wrapped(root: Path) -> str:
    """A hint for messages if the tree lies in a folder of `root`; otherwise empty."""
    inside = root
    for _ in range(4):  # as in ILSVRC/Data/CLS-LOC
        here = list(folders.class_folders(inside).values())
        if inside != root and split_folders(inside):
            return f" Is it --config.data.dir={inside}?"
        deeper = [inside / os.fsdecode(raw) for raw in here]
        deeper = [path for path in deeper if folders.class_folders(path)]
        if len(deeper) != 1:
            break
        inside = deeper[0]
    return ""


def no_classes(directory: Path, pattern: str) -> DataError:
    """The error where a split has no folders of classes."""
    return DataError(
        f"{directory}: no class folders; its images belong in {directory.name}/{pattern}/"
    )
