"""Classes of one's own: trees of class folders and lists of files, alone or several together."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from input_pipeline import annotations, folders, names, sources
from input_pipeline.datasets import layout, own_lists, own_stored
from input_pipeline.datasets.layout import Asked, Found, Listed, Place
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.sources import Examples


def find(asked: Asked) -> Found:
    """Joins the splits of all directories and files that are named, each in its own layout.

    A directory holds any of train/<class>/, val/<class>/ and test/<class>/ in any spelling; or
    <class>/; or train.csv and the like; or shards, Parquet or Arrow files, see `own_stored`. A file
    is a list, see `own_lists`. A split has the examples of the first place, then those of the
    second, and so on. Classes with the same name in several places are one class.

    Raises:
      DataError: nothing is there, there are fewer than two classes, or two classes share a name.
    """
    roots = asked.roots(f"dataset {asked.name} needs a directory: --config.data.dir=DIR")
    stored = own_stored.find(asked, roots)
    if stored is not None:
        return stored
    known, cache_dir = asked.class_names, asked.cache_dir
    places = [own_lists.find(root, cache_dir) or _tree(root) for root in roots]
    notes = [note for place in places for note in place.notes]
    of_split = {
        split: [place.splits[split] for place in places if split in place.splits]
        for split in names.SPLITS
    }
    of_split = {split: listed for split, listed in of_split.items() if listed}
    base = next(split for split in names.SPLITS if split in of_split)
    where = ", ".join(shown(listed.where) for listed in of_split[base])
    own = _together([listed.classes for listed in of_split[base]])
    if len(own) < 2 and (base == "train" or not own or not known):
        raise DataError(
            f"{where}: {len(own)} {places[0].called}, at least two are needed "
            f"({places[0].looked_for.format(base=base)}).{_hint(roots[0])}"
        )
    class_names, said = names.class_order(own, where)
    natural, mine = [names.key(name) for name in class_names], set(map(names.key, own))
    kept = [] if known is None else [names.key(name) for name in known]
    # The names known before, if they are those of the folders, or these are some of them.
    if known and (mine == set(kept) or (mine < set(kept) and (asked.evaluated or base != "train"))):
        class_names = tuple(known)
        if [name for name in kept if name in mine] != natural:
            said = [
                f"{where}: labels follow the class names that the network was "
                f"trained with ({names.listed(class_names, 3)})"
            ]
    notes += said

    # Why there is no such split; several places have several reasons.
    absent = {
        split: "; ".join(place.absent[split] for place in places)
        for split in names.SPLITS
        if split not in of_split
    }
    splits: dict[str, Callable[[], Examples]] = {}
    unlabelled: dict[str, Callable[[], Examples]] = {}
    for split, all_listed in of_split.items():
        used = []
        for listed in all_listed:
            found = set(map(names.key, listed.classes))
            if split == "test" and not found & set(map(names.key, class_names)):
                if listed.unlabelled is None:
                    count = folders.count_files(listed.where)
                    absent[split] = f"{listed.where} ({count}) has no labels: no folder of a class"
                    unlabelled[split] = functools.partial(folders.from_files, listed.where)
                else:
                    absent[split] = f"{listed.where} has no labels"
                    unlabelled[split] = functools.partial(listed.unlabelled, cache_dir)
                notes.append(f"{absent[split]}. It is not used")
            else:
                used.append(listed)
        if used:
            absent.pop(split, None)
            splits[split] = functools.partial(_opened, used, class_names, cache_dir)
    return Found(
        splits,
        class_names,
        absent,
        {} if "test" in splits else unlabelled,
        notes,
        layout="; ".join(dict.fromkeys(place.layout for place in places)),
        labels_from="; ".join(dict.fromkeys(place.labels_from for place in places)),
        ignored=sum(place.ignored for place in places),
    )


def _opened(used: Sequence[Listed], class_names: Sequence[str], cache_dir: Path) -> Examples:
    return sources.joined([listed.opened(class_names, cache_dir) for listed in used])


def _together(named: Sequence[Sequence[str]]) -> list[str]:
    """Class names of several places, each name once; those of one place as they are."""
    if len(named) == 1:
        return list(named[0])
    return list({names.key(name): name for place in reversed(named) for name in place}.values())


def _hint(root: Path) -> str:
    if not root.is_dir():
        return ""
    listed = own_lists.files_in(root)
    return f" Is it --config.data.dir={listed[0]}?" if listed else layout.wrapped(root)


def _tree(root: Path) -> Place:
    """train/<class>/, val/<class>/, test/<class>/ in any spelling, those there are; or <class>/."""
    where = layout.split_folders(root)
    notes: list[str] = []
    if where and not any(folders.class_folders(path) for path in where.values()):
        # A folder of images called `train` beside others is one of railways; beside others that
        # sound like splits (test1) its images are in no class.
        named = [path.name for path in where.values()]
        others = [raw for name, raw in folders.class_folders(root).items() if name not in named]
        classes = [raw for raw in others if folders.holds_images(root / os.fsdecode(raw))]
        like_splits = any(names.sounds_like_a_split(shown(raw)) for raw in classes)
        if len(classes) > 1 and not like_splits:
            notes.append(f"{root}: {', '.join(named)} taken for classes, not for splits")
            where = {}
    absent = layout.absent_folders(root, where)
    if where:
        notes += folders.unused(
            root, [*(path.name for path in where.values()), *annotations.names_in(root)]
        )
        said = ", ".join(f"{path.name}/<class>/*" for path in where.values())
    else:
        where, said = {"train": root}, "<class>/*"
        absent.pop("train")
    return Place(
        {
            split: Listed(path, list(folders.class_folders(path)), functools.partial(_folder, path))
            for split, path in where.items()
        },
        absent,
        notes,
        layout=f"class folders: {said}",
        labels_from="the names of the class folders",
        ignored=0 if root in where.values() else folders.count_clutter(root),
        called="class folders",
        looked_for="looked for {base}/<class>/* or <class>/*",
    )


def _folder(path: Path, class_names: Sequence[str], cache_dir: Path) -> Examples:
    if not folders.class_folders(path):
        raise layout.no_classes(path, "<class>")
    return folders.from_folders(path, class_names, cache_dir)
