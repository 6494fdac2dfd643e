"""ILSVRC-2012 and ILSVRC-2010, in any supported layout."""

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
# Names beside the images that are expected there, such as lists of labels, and not reported.
_BESIDE = re.compile(
    r".*devkit.*|caffe_ilsvrc12.*|ILSVRC\d{4}_.*|LOC_.*\.(csv|txt)|val\.txt|meta\.mat|"
    r"map_clsloc\.txt|Annotations|ImageSets"
)


def find(asked: Asked) -> Found:
    """Finds ILSVRC-2012: a TFDS directory, or at least one split in any other layout.

    Raises:
      DataError: there is no split, or the images are not those of ImageNet.
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
    """Finds ILSVRC-2010. Labels are the development kit's IDs minus one; test images have labels.

    Raises:
      DataError: there is no kit or no split, or the images are not those of ImageNet.
    """
    root = asked.root(f"this config needs ILSVRC-2010. {_PREPARE}")
    tree, places = _tree(root)
    synsets, source = validation_labels.class_map(places, 2010)
    found = _splits(asked, root, tree, places, Challenge(2010, synsets))
    found.notes.append(f"classes in the order of {source}")
    return found


def _tree(root: Path) -> tuple[Path, list[Path]]:
    """The directory of the split folders, and the directories that may hold labels.

    `root` may be any directory of Kaggle's tree, ILSVRC/Data/CLS-LOC.

    Raises:
      DataError: there are two such trees.
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
    where, notes, used = _sources(root, tree, challenge.year)
    if not where.keys() - {"test"}:
        said = "".join(f" {note}." for note in notes)
        raise DataError(
            f"{root}: not ImageNet (looked for train/<wnid>/ and val/<wnid>/, "
            f"ILSVRC{challenge.year}_img_train.tar, train-*.parquet, NAME-000000.tar, state.json, "
            f"and for imagenet2012/<version>/dataset_info.json).{layout.wrapped(root)}{said}\n"
            f"{_PREPARE}"
        )
    forms = {of.form for of in where.values() if isinstance(of, Stored) and of.form}
    absent = {
        split: why + "".join(f", {layouts.named_as(form, split)}" for form in sorted(forms))
        for split, why in layout.absent_folders(tree, {s: root for s in where}).items()
    }
    unlabelled: dict[str, Callable[[], Examples]] = {}
    if challenge.year == 2012 and "test" in where:
        secret = where.pop("test")
        absent["test"] = f"the labels of ImageNet's test images are secret ({_place(secret)})"
        place = _place(secret)
        count = f"/ ({folders.count_files(place)})" if place.is_dir() else ""
        notes.append(
            f"{shown(place.parent)}: not used: {shown(place.name)}{count}, without labels; "
            "--mode=evaluate --config.evaluation.split=test scores its images"
        )
        unlabelled["test"] = functools.partial(_unlabelled, secret, asked.cache_dir)
    test = where.get("test")
    if (
        isinstance(test, Stored)
        and not test.labelled
        and not validation_labels.those_there(challenge, "test", [*places, _place(test).parent])
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
        layout=", ".join(
            f"{split}: "
            + (f"folders of synsets, {of.name}/<wnid>/*" if isinstance(of, Path) else of.layout)
            for split, of in where.items()
        ),
        labels_from=", ".join(
            f"{split}: {_labels_from(asked, challenge, places, split, of)}"
            for split, of in where.items()
        ),
        ignored=folders.count_clutter(tree, used),
    )


def _labels_from(
    asked: Asked, challenge: Challenge, places: list[Path], split: str, source: Path | Stored
) -> str:
    """Describes where the labels of a split come from."""
    if isinstance(source, Path):
        return "the names of the class folders"
    if source.labelled:
        return "what is stored with the images"
    if split == "validation" and asked.validation_labels:
        return asked.validation_labels
    beside = [*places, source.files[0].parent]
    there = validation_labels.those_there(challenge, split, beside)
    named = names.listed([shown(path) for path in dict.fromkeys(there)])
    return named if len(set(there)) == 1 else f"the first that fits of {named or 'nothing'}"


def _sources(
    root: Path, tree: Path, year: int
) -> tuple[dict[str, Path | Stored], list[str], list[str]]:
    """Locates each split: a folder of class folders, or files of a storage layout.

    Returns:
      The source by split; notes; and the names in `tree` that are used.

    Raises:
      DataError: a split is there twice, or its tars are only partly unpacked.
    """
    stored, left = layouts.find(root, year)
    found: dict[str, Path | Stored] = {**stored}
    folders_of = layout.split_folders(tree)
    used = [path.name for path in folders_of.values()]
    used += [path.name for path in tree.iterdir() if _BESIDE.fullmatch(path.name)]
    used += annotations.names_in(tree) + layouts.names_in(tree, stored)
    notes = layouts.not_used(root, left)
    if folders_of:
        notes += folders.unused(tree, [*used, *(path.name for path in left)])
    for split, folder in folders_of.items():
        flat = None if split == "train" else layouts.flat_folder.find(folder)
        tar = stored.get(split)
        if tar is not None:
            if not flat and not folders.class_folders(folder):
                continue  # shards may lie in it
            if tar.stray:
                notes.append(f"{shown(tar.files[0])}: not used: {folder.name}/ is there")
            elif layouts.original_tars.is_original(tar):
                layouts.original_tars.check_unpacked(tar, split, folder)
                notes.append(f"{shown(tar.files[0])}: not used: its images are in {folder.name}/")
            else:
                raise layouts.mixed(root, split, f"{folder.name}/", tar.layout)
        found[split] = flat or folder
    return {split: found[split] for split in names.SPLITS if split in found}, notes, used


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
        # Training images are listed only on demand: the validation images may come without them.
        training = (
            functools.partial(first.members, cache_dir) if isinstance(first, Stored) else None
        )
        labels = layouts.standard_labels(source, found, challenge.synsets, training)
        if split == "validation":
            where_from = f"{shown(source.files[0])} and others"
            validation_labels.check_known(where_from, found.names, labels, challenge)
            by_number = not set(found.classes) <= challenge.label_of.keys()
            if by_number and isinstance(first, Stored):
                layouts.check_order(source, found.classes, first)
        return layouts.examples(source, found, labels, challenge.synsets)
    chosen = asked.validation_labels if split == "validation" else None
    first_file = source.files[0]
    beside = [*places, first_file.parent]
    matched = validation_labels.find(challenge, split, beside, found.names, chosen)
    if matched is None:
        raise DataError(
            f"{shown(first_file)}: no class folders, and no labels of its images beside it. "
            f"{_LABELS.format(challenge.year)}"
        )
    examples = layouts.examples(source, found, matched.labels, challenge.synsets)
    said = f"{shown(first_file)}: labels from {matched.source}"
    return dataclasses.replace(examples, notes=(said, *matched.notes, *examples.notes))


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
