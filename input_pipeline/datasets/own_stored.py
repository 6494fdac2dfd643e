"""Classes of one's own in WebDataset shards, or in Parquet or Arrow files as the Hub has them."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from input_pipeline import folders, layouts, names
from input_pipeline.datasets.layout import Asked, Found
from input_pipeline.errors import DataError
from input_pipeline.layouts import Stored
from input_pipeline.names import shown
from input_pipeline.sources import Examples


def find(asked: Asked, roots: Sequence[Path]) -> Found | None:
    """Finds splits that are stored in files of many images; None if there are no such files.

    Class names come from the files' schema. Without them, they are the numbers from 0 to the
    largest label.

    Raises:
      DataError: see `layouts.find`; or images have no labels, there are fewer than two classes, or
        several directories are named.
    """
    all_stored = {root: _stored(root) for root in roots}
    root = next((root for root, (found, _) in all_stored.items() if found), roots[0])
    stored_of, unused = all_stored[root]
    if not stored_of:
        return None
    notes = layouts.not_used(root, unused)
    used = layouts.names_in(root, stored_of)
    if len(roots) > 1:
        kind = next(iter(stored_of.values())).layout
        raise DataError(
            f"data.dir={asked.directory}: {root} holds {kind}, which is read alone; several "
            "directories can be class folders and lists"
        )
    forms = sorted({stored.form for stored in stored_of.values()})
    absent = {
        split: f"{root} has no {' or '.join(layouts.named_as(form, split) for form in forms)}"
        for split in names.SPLITS
    }
    unlabelled: dict[str, Callable[[], Examples]] = {}
    for split in [
        s for s, stored in stored_of.items() if s == "test" and _unlabelled(stored, asked)
    ]:
        absent[split] = f"the {split} split in {root} has no labels"
        notes.append(f"{absent[split]}. It is not used")
        unlabelled[split] = functools.partial(
            _open_unlabelled, stored_of.pop(split), asked.cache_dir
        )
    if not stored_of:
        raise DataError(f"{root}: no labelled images, only {' and '.join(unlabelled)}")
    base = next(split for split in names.SPLITS if split in stored_of)
    classes = layouts.stored_classes(stored_of[base], stored_of[base].members(asked.cache_dir))
    if len(classes) < 2:
        raise DataError(f"{root}: {len(classes)} classes in its {base} split, two are needed")
    known = asked.class_names
    if known and (
        set(known) == set(classes)
        or (set(classes) < set(known) and (asked.evaluated or base != "train"))
    ):
        classes = tuple(known)
    splits: dict[str, Callable[[], Examples]] = {
        split: functools.partial(_open, stored, classes, asked.cache_dir)
        for split, stored in stored_of.items()
    }
    layout_text = ", ".join(f"{split}: {stored.layout}" for split, stored in stored_of.items())
    return Found(
        splits,
        classes,
        {split: why for split, why in absent.items() if split not in stored_of},
        unlabelled,
        notes,
        layout=layout_text,
        labels_from="what is stored with the images",
        ignored=folders.count_clutter(root, used),
    )


def _stored(root: Path) -> tuple[dict[str, Stored], list[Path]]:
    return ({}, []) if not root.is_dir() or _has_images_in_folders(root) else layouts.find(root)


def _has_images_in_folders(root: Path) -> bool:
    """Whether images lie one or two folders deep; tars beside such folders are not read."""
    return any(
        folders.holds_images(inside)
        for folder in _class_folders(root)
        for inside in (folder, *_class_folders(folder))
    )


def _class_folders(directory: Path) -> list[Path]:
    return [directory / os.fsdecode(raw) for raw in folders.class_folders(directory).values()]


def _unlabelled(stored: Stored, asked: Asked) -> bool:
    members = stored.members(asked.cache_dir)
    return bool((members.labels < 0).all())


def _open_unlabelled(stored: Stored, cache_dir: Path) -> Examples:
    return layouts.unlabelled(stored, stored.members(cache_dir))


def _open(stored: Stored, class_names: tuple[str, ...], cache_dir: Path) -> Examples:
    members = stored.members(cache_dir)
    stored_names = layouts.stored_classes(stored, members)
    label_of = {name: label for label, name in enumerate(class_names)}
    unknown = [name for name in stored_names if name not in label_of]
    if unknown:
        note = ""
        if members.classes:
            note = (
                f"; its schema names {len(stored_names)} classes, "
                f"{len(unknown)} of them not in these"
            )
        raise DataError(
            f"{shown(stored.files[0])}: class {unknown[0]!r} is not one of the {len(class_names)} "
            f"classes ({names.listed(class_names)}){note}"
        )
    labels = np.array([label_of[name] for name in stored_names], np.int32)[members.labels]
    return layouts.examples(stored, members, labels, class_names)
