"""Datasets by name: their splits, what is held out, and what is wrong with a directory.

A dataset that TFDS prepares needs no code here. Any other has a module beside this one, whose
function `find` returns what a directory holds, and an entry in `FINDERS`.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from input_pipeline import annotations, folders, sources
from input_pipeline.datasets import (
    classes,
    digit_canvases,
    digits,
    division,
    imagenet,
    own_data,
    tfds_directories,
)
from input_pipeline.datasets.division import Chosen
from input_pipeline.datasets.layout import Asked, Found
from input_pipeline.errors import DataError
from input_pipeline.names import paths_in
from input_pipeline.sources import Examples

# Datasets with their own module; any other name refers to a dataset that TFDS prepared.
FINDERS: dict[str, Callable[[Asked], Found]] = {
    "digit_canvases": digit_canvases.find,
    "digits": digits.find,
    "folder": own_data.find,
    "imagenet2010": imagenet.find_2010,
    "imagenet2012": imagenet.find,
}
# Stands for the split that results are reported on, wherever a split can be named.
REPORTED = "reported"


class Prepared(NamedTuple):
    """Images that were rescaled beforehand and stored at a fixed size.

    Attributes:
      directory: where they are stored.
      side: their shorter side in pixels.
      whole: they are whole images; otherwise central squares.
      as_source: at that size their pixels equal, bit for bit, those that the original images give,
        so that they keep the originals' fingerprint.
    """

    directory: Path
    side: int
    whole: bool
    as_source: bool


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled image dataset, or the part of it that was asked for.

    Attributes:
      name: the name it was asked for by.
      splits: those of `train`, `validation` and a labelled `test` that exist and were asked for,
        by name.
      class_names: name of each label.
      absent: the reason for each split that is missing, by name.
      notes: sentences on files that are not used, and on the order of labels where it is a choice.
      prepared: the images' fixed size and place; None for the original images.
      layout: description of the layout that was recognised.
      labels_from: description of the labels' source.
      ignored: number of hidden files and of files of systems and archivers beside the splits.
    """

    name: str
    splits: dict[str, Examples]
    class_names: tuple[str, ...]
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    prepared: Prepared | None = None
    layout: str = ""
    labels_from: str = ""
    ignored: int = 0

    @property
    def fingerprint(self) -> str:
        """Digest of the fingerprints of all splits; it also changes with what is held out."""
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
    chosen: Chosen = division.ALL,
    cache_dir: Path | None = None,
    only: str | None = None,
    class_names: Sequence[str] | None = None,
    validation_labels: str | None = None,
) -> Dataset:
    """Opens a dataset; reads its index but no images.

    Args:
      name: `imagenet2012` (in any layout, see `layouts`, or a TFDS directory), `imagenet2010`,
        `folder` (one's own classes: trees, lists, or any layout), `digits` (embedded), or the name
        of a labelled image dataset that TFDS prepared in `directory`: NAME, NAME/CONFIG,
        NAME/CONFIG/VERSION or NAME:VERSION.
      directory: the dataset's directory; not needed for `digits`. For `folder` it may also be a
        CSV or JSONL file, or several directories and files separated by commas.
      validation_examples: number of examples to hold out of train if there is no validation split;
        by default 5,000 for CIFAR-10 and MNIST, 360 for the digits, none for ImageNet, and a
        tenth of train for other datasets.
      chosen: the classes, folds, which replace held-out examples, and the subset of the training
        examples.
      cache_dir: where indices are kept; by default `default_cache_dir()`.
      only: the one split to open, or `REPORTED`; None opens all. Splits that are not opened may be
        damaged or absent.
      class_names: classes of the network to be trained further or evaluated, in the order of its
        labels; None if it has none yet. If one's own classes are the same, they take this order;
        without a training set they may be a subset of these.
      validation_labels: the file with the labels of ImageNet's validation images, where the images
        come without labels; None searches beside the images.

    Raises:
      DataError: nothing is there, or the layout is unknown; the message says what was looked for.
    """
    cache_dir = cache_dir or default_cache_dir()
    with folders.readable():
        # Chosen classes are those of the dataset in its own order, not the network's.
        known = None if chosen.classes else class_names
        asked = Asked(name, directory, cache_dir, known, only is not None, validation_labels)
        found = FINDERS.get(name, tfds_directories.find)(asked)
        splits = _with_boxes(found, asked)
    base = tfds_directories.base_name(name)
    splits = division.divided(base, splits, validation_examples, chosen, cache_dir)
    if only == REPORTED:
        only = "test" if "test" in splits else "validation"
    if only in found.unlabelled and only not in splits:
        if chosen.classes:
            raise DataError(f"data.classes: the images of {name}'s split {only} have no labels")
        splits[only] = found.unlabelled[only]
    if only is not None and only not in splits:
        raise _no_split(name, only, list(splits), found.absent)
    dataset = Dataset(
        name,
        {split: splits[split]() for split in splits if only in (None, split)},
        found.class_names,
        found.absent,
        tuple(found.notes),
        layout=found.layout,
        labels_from=found.labels_from,
        ignored=found.ignored,
    )
    return with_chosen(dataset, chosen, cache_dir)


def with_chosen(dataset: Dataset, chosen: Chosen, cache_dir: Path) -> Dataset:
    """The classes of a dataset, and the training examples, that are used; with their notes.

    Raises:
      DataError: there is no such class, or there are fewer examples than asked for.
    """
    every, names = dataset.class_names, dataset.class_names
    splits = dict(dataset.splits)
    if chosen.classes:
        classes.check(chosen.classes, len(every), dataset.name)
        names = tuple(every[label] for label in chosen.classes)
        splits = {
            split: classes.chosen(examples, chosen.classes, len(every), cache_dir)
            for split, examples in splits.items()
        }
    if "train" in splits:
        splits["train"] = division.choose(splits["train"], chosen, names, cache_dir)
    notes = [*dataset.notes, *(note for examples in splits.values() for note in examples.notes)]
    return dataclasses.replace(
        dataset, splits=splits, class_names=names, notes=tuple(dict.fromkeys(notes))
    )


def _with_boxes(found: Found, asked: Asked) -> dict[str, Callable[[], Examples]]:
    """The splits, whose examples have the boxes of the annotations beside them."""
    roots = [Path(text) for text in paths_in(asked.directory or "")]
    # Files come first: annotations beside a list apply to every image that no directory holds.
    roots.sort(key=Path.is_dir)
    places = {root: annotations.beside(root) for root in roots}

    def opened(split: str) -> Examples:
        examples = found.splits[split]()
        for root in roots:
            if split in places[root]:
                examples = annotations.with_boxes(
                    examples,
                    places[root][split],
                    found.class_names,
                    asked.cache_dir,
                    within=root if len(roots) > 1 and root.is_dir() else None,
                )
        return examples

    return {
        split: functools.partial(opened, split)
        if any(split in there for there in places.values())
        else of
        for split, of in found.splits.items()
    }


def default_cache_dir() -> Path:
    """`vision_models` under $XDG_CACHE_HOME, or under ~/.cache; without a home under ./.cache."""
    chosen = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")  # noqa: PTH111
    return Path(".cache" if chosen.startswith("~") else chosen) / "vision_models"
