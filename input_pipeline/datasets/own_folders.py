"""Classes of one's own: a tree of class folders."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from input_pipeline import folders, names
from input_pipeline.datasets import layout
from input_pipeline.datasets.layout import Asked, Found
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.sources import Examples


def find(asked: Asked) -> Found:
    """train/<class>/, val/<class>/, test/<class>/ in any spelling, those there are; or <class>/.

    Raises:
      DataError: nothing there, fewer than two classes, or two of one name.
    """
    root = asked.root(f"dataset {asked.name} needs a directory: --config.data.dir=DIR")
    known, cache_dir = asked.class_names, asked.cache_dir
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
        notes += folders.unused(root, [path.name for path in where.values()])
        base = next(split for split in ("train", "validation", "test") if split in where)
    else:
        where, base = {"train": root}, "train"

    own = list(folders.class_folders(where[base]))
    if len(own) < 2 and (base == "train" or not own or not known):
        raise DataError(
            f"{where[base]}: {len(own)} class folders, at least two are needed "
            f"(looked for {base}/<class>/* or <class>/*).{layout.wrapped(root)}"
        )
    class_names, said = names.class_order(own, shown(where[base]))
    natural, mine = [names.key(name) for name in class_names], set(map(names.key, own))
    kept = [] if known is None else [names.key(name) for name in known]
    # The names known before, if they are those of the folders, or these are some of them.
    if known and (mine == set(kept) or (mine < set(kept) and (asked.evaluated or base != "train"))):
        class_names = tuple(known)
        if [name for name in kept if name in mine] != natural:
            said = [
                f"{where[base]}: labels follow the class names that the network was "
                f"trained with ({names.listed(class_names, 3)})"
            ]
    notes += said

    splits: dict[str, Callable[[], Examples]] = {}
    for split, path in where.items():
        found = set(map(names.key, folders.class_folders(path)))
        if split == "test" and not found & set(map(names.key, class_names)):
            absent[split] = (
                f"{path} ({folders.count_files(path)}) has no labels: no folder of a class"
            )
            notes.append(f"{absent[split]}. It is not used")
            continue
        splits[split] = functools.partial(_opened, path, class_names, cache_dir)
    return Found(splits, class_names, absent, notes)


def _opened(path: Path, class_names: Sequence[str], cache_dir: Path) -> Examples:
    if not folders.class_folders(path):
        raise layout.no_classes(path, "<class>")
    return folders.from_folders(path, class_names, cache_dir)
