"""ILSVRC-2012 and 2010, in whichever layout they come."""

import dataclasses
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path

from input_pipeline import annotations, folders, layouts, names, validation_labels
from input_pipeline.datasets import layout, tfds_directories
from input_pipeline.datasets.layout import Asked, Found
from input_pipeline.errors import DataError
from input_pipeline.layouts import Stored
from input_pipeline.names import shown
from input_pipeline.sources import Examples
from input_pipeline.validation_labels import Challenge

_PREPARE = (
    "Name ImageNet's directory with --config.data.dir=DIR, as it came: class folders (DIR/train/"
    "<wnid>/*.JPEG and DIR/val/<wnid>/*.JPEG), Kaggle's tree, the original tars, Parquet or Arrow "
    "files of the Hub, WebDataset shards, or what TFDS prepared (the README says how)."
)
_LABELS = (
    "Labels can be ILSVRC{0}_devkit*.tar.gz as downloaded, its ILSVRC{0}_validation_ground_truth."
    "txt with meta.mat or map_clsloc.txt, Kaggle's LOC_val_solution.csv or Caffe's val.txt: put "
    "one beside the images, or name it with --config.data.validation_labels=FILE"
)
# What lies beside the images and may say something of them.
_BESIDE = re.compile(
    r".*devkit.*|caffe_ilsvrc12.*|ILSVRC\d{4}_.*|LOC_.*\.(csv|txt)|val\.txt|meta\.mat|"
    r"map_clsloc\.txt|Annotations|ImageSets"
)


def find(asked: Asked) -> Found:
    """ILSVRC-2012: what TFDS prepared, or the splits of any layout, one of them at least.

    Raises:
      DataError: none, or what is no ImageNet.
    """
    root = asked.root(
        f"this config needs ImageNet. {_PREPARE}\n"
        "To try the network without it: --config=configs/alexnet.py:digits"
    )
    prepared = tfds_directories.find_version(asked, root)
    if prepared is not None:
        if asked.validation_labels:
            raise DataError(
                f"data.validation_labels={asked.validation_labels}: {root} was prepared by TFDS, "
                "with labels; leave that field out"
            )
        return prepared
    tree, places = _tree(root)
    return _splits(asked, root, tree, places, Challenge(2012, imagenet_synsets()))


def find_2010(asked: Asked) -> Found:
    """ILSVRC-2010: labels are the kit's own IDs less one; its test images are labelled.

    Raises:
      DataError: no kit, no images, or what is no ImageNet.
    """
    root = asked.root(f"this config needs ILSVRC-2010. {_PREPARE}")
    tree, places = _tree(root)
    synsets, source = validation_labels.class_map(places, 2010)
    found = _splits(asked, root, tree, places, Challenge(2010, synsets))
    found.notes.append(f"classes in the order of {source}")
    return found


def _tree(root: Path) -> tuple[Path, list[Path]]:
    """Where the folders of the splits are, and where labels may lie beside them.

    Of Kaggle's tree, ILSVRC/Data/CLS-LOC, any directory may be named.

    Raises:
      DataError: there are two of them.
    """
    inside = ("Data/CLS-LOC", "ILSVRC/Data/CLS-LOC", "*/ILSVRC/Data/CLS-LOC", "CLS-LOC")
    found = sorted({path for pattern in inside for path in root.glob(pattern) if path.is_dir()})
    if len(found) > 1:
        raise DataError(f"{root}: two trees, {found[0]} and {found[1]}; name one")
    tree = found[0] if found and not layout.split_folders(root) else root
    places = [root, *({tree} - {root})]
    above = tree.absolute()
    if above.name == "CLS-LOC":
        places += [path for path in list(above.parents)[:3] if path not in places]
    return tree, places


def _splits(
    asked: Asked, root: Path, tree: Path, places: list[Path], challenge: Challenge
) -> Found:
    where, notes = _sources(root, tree, challenge.year)
    if not where.keys() - {"test"}:
        raise DataError(
            f"{root}: not ImageNet (looked for train/<wnid>/ and val/<wnid>/, "
            f"ILSVRC{challenge.year}_img_train.tar, train-*.parquet, NAME-000000.tar, state.json, "
            f"and for imagenet2012/<version>/dataset_info.json).{layout.wrapped(root)}\n{_PREPARE}"
        )
    absent = layout.absent_folders(tree, {split: root for split in where})
    unlabelled: dict[str, Callable[[], Examples]] = {}
    if challenge.year == 2012 and "test" in where:
        secret = where.pop("test")
        absent["test"] = f"the labels of ImageNet's test images are secret ({_place(secret)})"
        unlabelled["test"] = functools.partial(_unlabelled, secret, asked.cache_dir)
    test = where.get("test")
    if isinstance(test, Stored) and not (
        test.labelled or validation_labels.find(challenge, "test", [*places, _place(test).parent])
    ):
        unlabelled["test"] = functools.partial(_unlabelled, test, asked.cache_dir)
        del where["test"]
        absent["test"] = (
            f"no labels of {_place(test)} (looked for "
            f"ILSVRC{challenge.year}_test_ground_truth.txt beside it)"
        )
        notes.append(f"{absent['test']}. It is not used")
    if "validation" not in where:
        absent["validation"] += (
            " (its images, in class folders or with their labels beside them); part of train/ is "
            "held out by --config.data.validation_examples=50000"
        )
    validation = where.get("validation")
    if asked.validation_labels and not (isinstance(validation, Stored) and not validation.labelled):
        raise DataError(
            f"data.validation_labels={asked.validation_labels}: {root} has "
            + ("labels of its validation images" if validation else "no validation images")
            + "; leave that field out"
        )
    open_split = functools.partial(_open, asked, challenge, places, where)
    splits: dict[str, Callable[[], Examples]] = {
        split: functools.partial(open_split, split) for split in where
    }
    return Found(
        splits,
        challenge.synsets,
        absent,
        unlabelled,
        notes,
        layout=_by_split(where, lambda of: f"folders of synsets, {of.name}/<wnid>/*", "layout"),
        labels_from=_by_split(where, lambda _: "the names of the class folders", "labels_from"),
        ignored=folders.count_clutter(tree),
    )


def _by_split(where: dict[str, Path | Stored], of_folder: Callable[[Path], str], of: str) -> str:
    """What is to be said of each split: of class folders by a function, else what `Stored` says."""
    return ", ".join(
        f"{split}: {of_folder(source) if isinstance(source, Path) else getattr(source, of)}"
        for split, source in where.items()
    )


def _sources(root: Path, tree: Path, year: int) -> tuple[dict[str, Path | Stored], list[str]]:
    """Where each split is: a folder of class folders, or what a layout has stored; and notes.

    Raises:
      DataError: a split is there twice.
    """
    found: dict[str, Path | Stored] = {**layouts.find(root, year)}
    folders_of = layout.split_folders(tree)
    used = [path.name for split, path in folders_of.items() if split != "test" or year == 2010]
    used += [path.name for path in tree.iterdir() if _BESIDE.fullmatch(path.name)]
    used += annotations.names_in(tree)
    notes = folders.unused(tree, used) if folders_of else []
    for split, folder in folders_of.items():
        flat = None if split == "train" else layouts.flat_folder.find(folder)
        stored = found.get(split)
        if isinstance(stored, Stored):
            if not flat and not folders.class_folders(folder):
                continue  # shards may lie in it
            if not stored.layout.startswith("the original tar"):
                raise layouts.mixed(root, split, f"{folder.name}/", stored.layout)
            notes.append(f"{stored.files[0]}: not used: its images are in {folder.name}/")
        found[split] = flat or folder
    return {split: found[split] for split in names.SPLITS if split in found}, notes


def _place(source: Path | Stored) -> Path:
    return source if isinstance(source, Path) else source.files[0]


def _open(
    asked: Asked,
    challenge: Challenge,
    places: list[Path],
    where: dict[str, Path | Stored],
    split: str,
) -> Examples:
    source, cache_dir = where[split], asked.cache_dir
    if isinstance(source, Path):
        return _class_folders(source, challenge, cache_dir)
    found = source.members(cache_dir)
    if source.labelled:
        first = where.get("train")
        # Listed only where it is needed: validation images may be there alone.
        training = (
            functools.partial(first.members, cache_dir) if isinstance(first, Stored) else None
        )
        labels = layouts.standard_labels(source, found, challenge.synsets, training)
        return layouts.examples(source, found, labels, challenge.synsets)
    chosen = asked.validation_labels if split == "validation" else None
    listed = validation_labels.find(challenge, split, [*places, source.files[0].parent], chosen)
    if listed is None:
        raise DataError(
            f"{shown(source.files[0])}: no class folders, and no labels of its images beside it. "
            f"{_LABELS.format(challenge.year)}"
        )
    labels = validation_labels.apply(listed, found.names, challenge, split)
    notes = [
        f"{shown(source.files[0])}: labels from {listed.source}",
        *validation_labels.doubts(listed, found.names, challenge, split),
    ]
    examples = layouts.examples(source, found, labels, challenge.synsets)
    return dataclasses.replace(examples, notes=(*notes, *examples.notes))


def _unlabelled(source: Path | Stored, cache_dir: Path) -> Examples:
    if isinstance(source, Path):
        return folders.from_files(source)
    return layouts.unlabelled(source, source.members(cache_dir))


def _class_folders(directory: Path, challenge: Challenge, cache_dir: Path) -> Examples:
    found = folders.class_folders(directory)
    if not found:
        raise layout.no_classes(directory, "<wnid>")
    strange = sorted(found.keys() - challenge.label_of.keys())
    if strange:
        raise DataError(
            f"{directory}/{strange[0]}: no synset of ImageNet, such as n01440764. "
            "For classes of your own: --config.data.name=folder"
        )
    examples = folders.from_folders(directory, challenge.synsets, cache_dir)
    said = layouts.missing_classes(directory, challenge.synsets, found)
    return dataclasses.replace(examples, notes=(*examples.notes, *said))


def imagenet_synsets() -> tuple[str, ...]:
    """The 1000 ILSVRC-2012 synsets (WordNet ids) in the order of their labels, from TFDS."""
    import tensorflow_datasets as tfds

    return tuple(tfds.builder("imagenet2012", data_dir=os.devnull).info.features["label"].names)
