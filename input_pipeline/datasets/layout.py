"""What a dataset's files say before any image is listed, and folders that are named as splits."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from input_pipeline import folders, names
from input_pipeline.errors import DataError
from input_pipeline.sources import Examples


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which dataset is to be opened.

    Attributes:
      name, directory, cache_dir, class_names: see `open_dataset`.
      evaluated: rather than trained on.
      validation_labels: see `open_dataset`.
    """

    name: str
    directory: str | None
    cache_dir: Path
    class_names: Sequence[str] | None
    evaluated: bool
    validation_labels: str | None = None

    def root(self, missing: str) -> Path:
        """The directory, which is there and not empty.

        Raises:
          DataError: it is not, or none is named: then the message is `missing`.
        """
        if not self.directory:
            raise DataError(missing)
        root = Path(self.directory)
        if not root.exists():
            raise DataError(f"data.dir={self.directory}: there is no such directory")
        if not root.is_dir():
            raise DataError(f"data.dir={self.directory}: a file, not a directory")
        if not any(root.iterdir()):
            raise DataError(f"data.dir={self.directory}: the directory is empty")
        return root


@dataclasses.dataclass(frozen=True)
class Found:
    """What there is, before any image is listed; see `Dataset`."""

    splits: dict[str, Callable[[], Examples]]
    class_names: tuple[str, ...]
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    layout: str = ""
    labels_from: str = ""


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of `root` that are named as splits, by split.

    Raises:
      DataError: two are of the same split.
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


def absent_folders(root: Path, where: dict[str, Path]) -> dict[str, str]:
    """Why there is no such split, for those that no folder is named as."""
    return {
        split: f"{root} has no folder {'/, '.join(words)}/"
        for split, words in names.SPLITS.items()
        if split not in where
    }


def wrapped(root: Path) -> str:
    """A hint, if the tree is not in `root` but in a folder of it."""
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
