"""Storage layouts of datasets: images in tars, shards, Parquet and Arrow files, flat folders.

Each module handles one layout. Its `find` returns the splits in a directory as `Stored`, which can
list the images and read one by its place. `members` sorts the images as in a folder tree.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from input_pipeline.errors import DataError
from input_pipeline.layouts import flat_folder, hub, original_tars, webdataset
from input_pipeline.layouts.members import (
    Members,
    Stored,
    examples,
    missing_classes,
    mixed,
    unlabelled,
)
from input_pipeline.names import listed, shown

__all__ = [
    "Members",
    "Stored",
    "check_order",
    "examples",
    "find",
    "flat_folder",
    "missing_classes",
    "mixed",
    "named_as",
    "names_in",
    "not_used",
    "original_tars",
    "standard_labels",
    "stored_classes",
    "unlabelled",
]


def find(root: Path, year: int | None = None) -> tuple[dict[str, Stored], list[Path]]:
    """Finds the splits in a directory that are stored in files of many images each.

    Args:
      root: the directory.
      year: year of the challenge whose original tars are also looked for; None for no challenge.

    Returns:
      The splits by name; and the files and folders that belong to no split, or whose use is
      unclear.

    Raises:
      DataError: a split is there in two layouts, or some of its files are missing.
    """
    tars = original_tars.find(root, year) if year else {}
    found: dict[str, Stored] = {}
    left: list[Path] = []
    for layout, others in (
        (tars, []),
        hub.find_parquet(root),
        hub.find_arrow(root),
        webdataset.find(root),
    ):
        left += others
        for split, stored in layout.items():
            if split not in found:
                found[split] = stored
            elif stored.stray:
                left += stored.files
            else:
                raise mixed(root, split, found[split].layout, stored.layout)
    return found, left


def not_used(root: Path, left: Sequence[Path]) -> list[str]:
    """A list of one sentence on the paths that `find` left over; empty if there are none."""
    named = [f"{shown(path.relative_to(root))}{'/' * path.is_dir()}" for path in left]
    return [f"{shown(root)}: not used: {listed(sorted(named))} (of no split)"] if named else []


def names_in(root: Path, found: Mapping[str, object]) -> list[str]:
    """Names of the files and folders of a directory that stored splits lie in."""
    files = [path for of in found.values() if isinstance(of, Stored) for path in of.files]
    return sorted({path.relative_to(root).parts[0] for path in files if root in path.parents})


def named_as(form: str, split: str) -> str:
    """The file names of a split: `Stored.form` with the name of the split filled in."""
    return form.format(split=split, short="val" if split == "validation" else split)


def stored_classes(stored: Stored, found: Members) -> tuple[str, ...]:
    """Class names of a split: the stored ones, or else the numbers from 0 to the largest label.

    Raises:
      DataError: some images have no label.
    """
    if len(found.labels) and found.labels.min() < 0:
        raise DataError(f"{shown(stored.files[0])}: images without a label in the {stored.layout}")
    if found.classes:
        return found.classes
    return tuple(str(number) for number in range(int(found.labels.max(initial=-1)) + 1))


def synsets_of(found: Members) -> np.ndarray:
    """The synset in each image's name, such as n01440764_10026.JPEG; empty where there is none."""
    names = found.names.astype("S10")
    letters = names.view(np.uint8).reshape(len(names), 10)
    digits = ((letters[:, 1:9] >= ord("0")) & (letters[:, 1:9] <= ord("9"))).all(1)
    named = (letters[:, 0] == ord("n")) & digits & (letters[:, 9] == ord("_"))
    return np.where(named, names.astype("S9"), b"")


def standard_labels(
    stored: Stored,
    found: Members,
    synsets: Sequence[str],
    training: Callable[[], Members] | None,
) -> np.ndarray:
    """Maps a split's labels to those of a challenge: each image's synset, int32 [count].

    The stored classes may be synsets, in any order and not all of them. A thousand other names,
    or plain numbers, are taken to be in the challenge's order already. Fewer than a thousand other
    names are mapped by the synsets in the names of their training images.

    Args:
      stored, found: the split and its images.
      synsets: of the challenge, in the order of their labels.
      training: lists the training split; None if there is none in this layout.

    Raises:
      DataError: the classes are not the challenge's, or the images' names contradict the labels.
    """
    where, count = shown(stored.files[0]), len(synsets)
    own = " For classes of your own: --config.data.name=folder"
    known = {synset: label for label, synset in enumerate(synsets)}
    classes: Sequence[str] = found.classes
    strange = [name for name in classes if name not in known]
    if strange and len(classes) != count:
        classes = _synsets_by_name(found.classes, training and training())
        if not classes or not set(classes) <= known.keys():
            raise DataError(f"{where}: {strange[0]!r} is no synset, such as n01440764.{own}")
        strange = []
    labels = found.labels
    if classes and not strange:
        labels = np.array([known[name] for name in classes], np.int32)[labels]
    if len(labels) and not 0 <= labels.min() <= labels.max() < count:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise DataError(f"{where}: label {wrong}, where those of ILSVRC are 0 to {count - 1}.{own}")
    said = synsets_of(found)
    other = np.flatnonzero((said != b"") & (said != np.array(synsets, "S9")[labels]))
    if len(other):
        first = other[0]
        raise DataError(
            f"{where}: {shown(bytes(found.names[first]))} has label {labels[first]}, which is "
            f"{synsets[labels[first]]} in ILSVRC, and {len(other):,} images like that: labels of "
            f"another order.{own}"
        )
    return labels


def check_order(stored: Stored, classes: Sequence[str], first: Stored) -> None:
    """Checks that a split's schema names its classes in the same order as the training split's.

    Raises:
      DataError: the schemas have the same names in different orders, so that a label would mean
        two classes.
    """
    has_schema = first.files[0].suffix in (".parquet", ".arrow")
    theirs = hub.class_names(first.files[0]) if has_schema else ()
    if set(theirs) == set(classes) and theirs != tuple(classes):
        at = next(n for n, name in enumerate(classes) if name != theirs[n])
        raise DataError(
            f"{shown(stored.files[0])}: class {at} is {classes[at]!r} in its schema, and "
            f"{theirs[at]!r} in that of {shown(first.files[0].name)}: labels of another order; "
            "get both from one source"
        )


def _synsets_by_name(classes: Sequence[str], training: Members | None) -> list[str]:
    """The synset of each class, from the names of its training images; none if they do not say."""
    if training is None or training.classes != tuple(classes):
        return []
    said, found = synsets_of(training), []
    for label in range(len(classes)):
        its = np.unique(said[training.labels == label])
        if len(its) != 1 or not its[0]:
            return []
        found.append(its[0].decode())
    return found
