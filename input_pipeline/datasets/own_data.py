"""Classes of one's own: trees of class folders and lists of files, alone or several together."""

import functools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from input_pipeline import annotations, folders, names, sources
from input_pipeline.datasets import layout, own_lists, own_stored
from input_pipeline.datasets.layout import Asked, Found, Listed, Place
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.sources import Examples


def find(asked: Asked) -> Found:
    """Joins the splits of all places, which are the directories and files that are named.

    A directory has one of four layouts: split folders train/<class>/, val/<class>/ and
    test/<class>/ in any spelling, or some of them; class folders <class>/; lists such as train.csv,
    see `own_lists`; shards, Parquet or Arrow files, see `own_stored`. A file is a list. A split has
    the examples of the first place, then those of the second, and so on. Classes with the same name
    in several places are one class.

    Raises:
      DataError: nothing is there, there are fewer than two classes, two classes share a name, or
        what look like class folders are splits.
    """
    roots = asked.roots(f"dataset {asked.name} needs a directory: --config.data.dir=DIR")
    stored = own_stored.find(asked, roots)
    if stored is not None:
        return stored
    known, cache_dir = asked.class_names, asked.cache_dir
    places = [own_lists.find(root, cache_dir) or _tree(root) for root in roots]
    notes = [note for place in places for note in place.notes]
    parts_of = {
        split: [place.splits[split] for place in places if split in place.splits]
        for split in names.SPLITS
    }
    parts_of = {split: parts for split, parts in parts_of.items() if parts}
    base = next(split for split in names.SPLITS if split in parts_of)
    where = ", ".join(shown(part.where) for part in parts_of[base])
    found = _together([part.classes for part in parts_of[base]])
    if len(found) < 2 and (base == "train" or not found or not known):
        raise DataError(
            f"{where}: {len(found)} {places[0].called}, at least two are needed "
            f"({places[0].looked_for.format(base=base)}).{_hint(roots[0])}"
        )
    class_names, order_notes = names.class_order(found, where)
    ordered_keys = [names.key(name) for name in class_names]
    found_keys = set(ordered_keys)
    known_keys = [] if known is None else [names.key(name) for name in known]
    same = found_keys == set(known_keys)
    some = found_keys < set(known_keys) and (asked.evaluated or base != "train")
    # The classes found are the known ones, or some of them: the known labels hold.
    if known and (same or some):
        class_names = tuple(known)
        if [name for name in known_keys if name in found_keys] != ordered_keys:
            order_notes = [
                f"{where}: labels follow the class names that the network was "
                f"trained with ({names.listed(class_names, 3)})"
            ]
    notes += order_notes

    # Each place has its own reason why it lacks a split.
    absent = {
        split: "; ".join(place.absent[split] for place in places)
        for split in names.SPLITS
        if split not in parts_of
    }
    splits: dict[str, Callable[[], Examples]] = {}
    unlabelled: dict[str, Callable[[], Examples]] = {}
    for split, parts in parts_of.items():
        used, bare = [], []
        for part in parts:
            part_keys = set(map(names.key, part.classes))
            if split == "test" and not part_keys & set(map(names.key, class_names)):
                bare.append(part)
            else:
                used.append(part)
        said = [_no_labels(part) for part in bare]
        notes += [f"{why}. It is not used" for why in said]
        if used:
            splits[split] = functools.partial(_opened, used, class_names, cache_dir)
        else:
            absent[split] = "; ".join(said)
            unlabelled[split] = functools.partial(_unlabelled, bare, cache_dir)
    return Found(
        splits,
        class_names,
        absent,
        unlabelled,
        notes,
        layout="; ".join(dict.fromkeys(place.layout for place in places)),
        labels_from="; ".join(dict.fromkeys(place.labels_from for place in places)),
        ignored=sum(place.ignored for place in places),
    )


def _opened(used: Sequence[Listed], class_names: Sequence[str], cache_dir: Path) -> Examples:
    return sources.joined([listed.opened(class_names, cache_dir) for listed in used])


def _no_labels(part: Listed) -> str:
    """Says in words that the images of a place have no labels."""
    if part.unlabelled is not None:
        return f"{part.where} has no labels"
    return f"{part.where} ({folders.count_files(part.where)}) has no labels: no folder of a class"


def _unlabelled(bare: Sequence[Listed], cache_dir: Path) -> Examples:
    return sources.joined(
        [
            part.unlabelled(cache_dir) if part.unlabelled else folders.from_files(part.where)
            for part in bare
        ]
    )


def _together(named: Sequence[Sequence[str]]) -> list[str]:
    """Class names of all places, each once; those of a single place are returned as they are."""
    if len(named) == 1:
        return list(named[0])
    return list({names.key(name): name for place in reversed(named) for name in place}.values())


def _hint(root: Path) -> str:
    if not root.is_dir():
        return ""
    lists = own_lists.files_in(root)
    return f" Is it --config.data.dir={lists[0]}?" if lists else layout.wrapped(root)


def _tree(root: Path) -> Place:
    """Finds split folders such as train/<class>/ in any spelling; or class folders, <class>/."""
    split_paths = layout.split_folders(root)
    notes: list[str] = []
    if split_paths and not any(folders.class_folders(path) for path in split_paths.values()):
        # A folder of images named `train` may be a class (railways), or a split that lacks class
        # folders. It is a class if other folders of images lie beside it, and the name of none
        # sounds like a split (test1).
        split_names = [path.name for path in split_paths.values()]
        others = [
            raw for name, raw in folders.class_folders(root).items() if name not in split_names
        ]
        image_folders = [raw for raw in others if folders.holds_images(root / os.fsdecode(raw))]
        like_splits = any(names.sounds_like_a_split(shown(raw)) for raw in image_folders)
        if len(image_folders) > 1 and not like_splits:
            notes.append(f"{root}: {', '.join(split_names)} taken for classes, not for splits")
            split_paths = {}
    absent = layout.absent_folders(root, split_paths)
    if split_paths:
        notes += folders.unused(
            root, [*(path.name for path in split_paths.values()), *annotations.names_in(root)]
        )
        layout_text = ", ".join(f"{path.name}/<class>/*" for path in split_paths.values())
    else:
        notes += _check_no_splits(root)
        split_paths, layout_text = {"train": root}, "<class>/*"
        absent.pop("train")
    return Place(
        {
            split: Listed(
                path, list(folders.class_folders(path)), functools.partial(_folder, root, path)
            )
            for split, path in split_paths.items()
        },
        absent,
        notes,
        layout=f"class folders: {layout_text}",
        labels_from="the names of the class folders",
        ignored=0 if root in split_paths.values() else folders.count_clutter(root),
        called="class folders",
        looked_for="looked for {base}/<class>/* or <class>/*",
    )


def _check_no_splits(root: Path) -> list[str]:
    """Checks that class folders are none of splits, such as seg_train/<class>/; notes if some may.

    Raises:
      DataError: all are named as parts of a dataset, of two kinds or more, and one holds folders.
    """
    parts = layout.called_like_splits(root)
    if len(set(parts.values())) < 2:
        return []
    listed = names.listed([shown(path.name) for path in parts])
    inner = {path: layout.unwrapped(path) for path in parts}
    trees = [path for path in parts if len(folders.class_folders(inner[path])) > 1]
    plain = [names.split_of(re.sub(r"[-_ ]?\d+$", "", shown(path.name))) for path in parts]
    if not trees and all(plain) and len(parts) == len(folders.class_folders(root)):
        raise DataError(
            f"{root}: {listed} are called as splits are and hold no folders of classes; each class "
            "needs a folder of its own, in train/ and validation/"
        )
    if not trees or len(parts) < len(folders.class_folders(root)):
        return [f"{root}: {listed} taken for classes, not for splits"]
    of_split = {split: inner[path] for path, split in reversed(parts.items()) if split}
    moves = [
        f"{shown(of_split[split].relative_to(root))} to {split}"
        for split in names.SPLITS
        if split in of_split
    ]
    alone = next((path for path in trees if parts[path] == "train"), trees[0])
    raise DataError(
        f"{root}: {listed} are called as splits are, not as classes. Move (or link) "
        f"{', '.join(moves)}; or take the classes of one, as --config.data.dir={inner[alone]}"
    )


def _folder(root: Path, path: Path, class_names: Sequence[str], cache_dir: Path) -> Examples:
    if not folders.class_folders(path):
        raise layout.no_classes(path, "<class>")
    # Annotations are looked for in `root` alone, not in the folders of its splits.
    used = annotations.names_in(root) if path == root else []
    return folders.from_folders(path, class_names, cache_dir, used)
