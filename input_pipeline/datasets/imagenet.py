"""ILSVRC-2012: its folder tree, or what TFDS prepared."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

from input_pipeline import annotations, folders
from input_pipeline.datasets import layout, tfds_directories
from input_pipeline.datasets.layout import Asked, Found
from input_pipeline.errors import DataError
from input_pipeline.sources import Examples

_PREPARE = (
    "Name ImageNet's directory with --config.data.dir=DIR: either DIR/train/<wnid>/*.JPEG and "
    "DIR/val/<wnid>/*.JPEG, or one where TFDS prepared imagenet2012 (the README says how)."
)


def find(asked: Asked) -> Found:
    """A directory that TFDS prepared, or train/<wnid>/ and val/<wnid>/, one of them at least.

    Raises:
      DataError: neither, or folders that are no synsets.
    """
    root = asked.root(
        f"this config needs ImageNet. {_PREPARE}\n"
        "To try the network without it: --config=configs/alexnet.py:digits"
    )
    return tfds_directories.find_version(asked, root) or _folders(root, asked.cache_dir)


def _folders(root: Path, cache_dir: Path) -> Found:
    where = layout.split_folders(root)
    test = where.pop("test", None)
    if not where:
        raise DataError(
            f"{root}: not ImageNet (looked for train/<wnid>/ and val/<wnid>/, and for "
            f"imagenet2012/<version>/dataset_info.json).{layout.wrapped(root)}\n{_PREPARE}"
        )
    synsets = imagenet_synsets()

    def opened(directory: Path) -> Examples:
        found = folders.class_folders(directory)
        if not found:
            raise layout.no_classes(directory, "<wnid>")
        strange = sorted(found.keys() - set(synsets))
        if strange:
            raise DataError(
                f"{directory}/{strange[0]}: no synset of ImageNet, such as n01440764. "
                "For classes of your own: --config.data.name=folder"
            )
        return folders.from_folders(directory, synsets, cache_dir)

    absent = layout.absent_folders(root, where)
    if test is not None:
        absent["test"] = f"the labels of ImageNet's test images are secret ({test})"
    if "validation" not in where:
        absent["validation"] += (
            " (its images, sorted into class folders); part of train/ is held out by "
            "--config.data.validation_examples=50000"
        )
    splits: dict[str, Callable[[], Examples]] = {
        split: functools.partial(opened, path) for split, path in where.items()
    }
    used = [*(path.name for path in where.values()), *annotations.names_in(root)]
    notes = folders.unused(root, used)
    return Found(
        splits,
        synsets,
        absent,
        notes,
        layout="folders of synsets: "
        + ", ".join(f"{path.name}/<wnid>/*" for path in where.values()),
        labels_from="the names of the class folders",
        ignored=folders.count_clutter(root),
    )


def imagenet_synsets() -> tuple[str, ...]:
    """The 1000 ILSVRC-2012 synsets (WordNet ids) in the order of their labels, from TFDS."""
    import tensorflow_datasets as tfds

    return tuple(tfds.builder("imagenet2012", data_dir=os.devnull).info.features["label"].names)
