"""The challenge's tars as downloaded: a tar of tars for training, one tar for each other split."""

import contextlib
import functools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from input_pipeline import folders, listing, names
from input_pipeline.errors import DataError
from input_pipeline.layouts import tar_files
from input_pipeline.layouts.members import Aside, Members, Stored, members, read_at
from input_pipeline.names import shown
from input_pipeline.report import progress_bar

# File names by year; those of 2012 are also used later.
_NAMES = {
    "train": ("ILSVRC{year}_img_train.tar", "ILSVRC{year}_images_train.tar"),
    "validation": ("ILSVRC{year}_img_val.tar", "ILSVRC{year}_images_val.tar"),
    "test": (
        *("ILSVRC{year}_img_test.tar", "ILSVRC{year}_images_test.tar"),
        "ILSVRC{year}_img_test_v10102019.tar",  # that of 2012 since October 2019
    ),
}
# Intact copies of images that are damaged in the tars of 2010.
_PATCH = "patch_images.tar"
_SYNSET = re.compile(r"n\d{8}\.tar")


def find(root: Path, year: int) -> dict[str, Stored]:
    """Finds the tars of a year's challenge in a directory, by split.

    The training tar may be there as it is, or extracted into one tar per synset.

    Raises:
      DataError: a tar is compressed.
    """
    found = _synset_tars(root)
    for split, patterns in _NAMES.items():
        for name in (pattern.format(year=year) for pattern in patterns):
            path = root / name
            packed = [p for p in root.glob(f"{name}*") if names.suffix(p.name) in _PACKED]
            if path.is_file():
                files = (path, *(p for p in [root / _PATCH] if year == 2010 and p.is_file()))
                found[split] = _stored(split, files)
            elif packed:
                raise DataError(
                    f"{shown(packed[0])}: compressed; images are read from the tar at random, so "
                    f"that it has to be plain: decompress it to {name}"
                )
    return found


_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def _synset_tars(root: Path) -> dict[str, Stored]:
    for folder in (root, root / "train"):
        files = tuple(p for p in sorted(folder.glob("n*.tar")) if _SYNSET.fullmatch(p.name))
        if files:
            layout = f"the original tars of {len(files)} synsets"
            return {
                "train": Stored(layout, files, functools.partial(_list_synsets, files), read_at)
            }
    return {}


def _stored(split: str, files: tuple[Path, ...]) -> Stored:
    listing = _list_train if split == "train" else _list_flat
    return Stored(
        f"the original tar {files[0].name}",
        files,
        lambda: listing(files, split),
        read_at,
        labelled=split == "train",
        form=re.sub("_(train|val|test).*", "_{short}.tar", files[0].name),
    )


def _list_train(files: tuple[Path, ...], split: str) -> Members:
    """Lists a tar that contains one tar of images per synset, such as n01440764.tar."""
    path = files[0]
    patches = _patches(files, split)
    classes: list[str] = []
    aside = Aside()

    def rows() -> Iterator[Any]:
        with open(path, "rb", buffering=0) as file, _bar(path, path.stat().st_size) as bar:
            for tar in sorted(tar_files.members(file.fileno(), path)):
                name = shown(tar.name)
                if aside.is_clutter(name, folder=True):
                    continue
                if not name.endswith(".tar"):
                    aside.leave(f"*{names.suffix(name)}", name)
                    continue
                classes.append(_synset_in(name))
                end = tar.offset + tar.size
                found = tar_files.members(file.fileno(), path, tar.offset, end, name)
                yield from _rows(found, len(classes) - 1, patches, aside)
                bar.update(tar.size)

    return aside.said(members(rows()), path)._replace(classes=tuple(classes))


def _synset_in(name: str) -> str:
    return os.path.basename(name).removesuffix(".tar")  # noqa: PTH119


def _list_synsets(files: tuple[Path, ...]) -> Members:
    """Lists the tars of the synsets, extracted from the training tar."""
    aside = Aside()

    def rows() -> Iterator[Any]:
        title = f"index of {shown(files[0].parent)}"
        for label, path in enumerate(progress_bar(files, desc=title, unit=" files", delay=1.0)):
            with open(path, "rb", buffering=0) as file:
                found = tar_files.members(file.fileno(), path)
                ((named, labels, sizes, _, places), _) = _rows(found, label, {}, aside)
            yield named, labels, sizes, label, places

    return aside.said(members(rows(), [path.stem for path in files]), files[0].parent)


def _list_flat(files: tuple[Path, ...], split: str) -> Members:
    """Lists a tar of images, whether or not they are in a folder."""
    path = files[0]
    aside = Aside()
    with open(path, "rb", buffering=0) as file, _bar(path, path.stat().st_size) as bar:

        def advance(position: int) -> None:
            bar.update(position - bar.n)

        found = list(tar_files.members(file.fileno(), path, advance=advance))
    return aside.said(members(_rows(found, -1, _patches(files, split), aside)), path)


def is_original(stored: Stored) -> bool:
    """Whether the split is stored in the challenge's original tars."""
    return stored.layout.startswith("the original tar")


def check_unpacked(stored: Stored, split: str, folder: Path) -> None:
    """Checks that a folder beside a split's tars holds everything that is in them.

    For training it must hold every synset, for other splits as many images.

    Raises:
      DataError: the folder is incomplete.
    """
    tar = stored.files[0]
    if split == "train":
        inside = {path.stem for path in stored.files}
        if stored.layout == f"the original tar {tar.name}":
            inside = {_synset_in(name) for name in _names_in(tar) if name.endswith(".tar")}
        there = folders.class_folders(folder)
        lacking = sorted(name for name in inside - there.keys() if not name.startswith("."))
        said = f"{len(lacking):,} of the {len(inside):,} synsets in it ({names.listed(lacking, 3)})"
    else:
        aside = Aside()
        count = sum(map(aside.is_image, _names_in(tar)))
        here = _count_images(folder, count)
        lacking = ["images"] * max(count - here, 0)
        said = f"{len(lacking):,} of the {count:,} images in it"
    if lacking:
        raise DataError(
            f"{shown(folder)}: not unpacked wholly from {shown(tar)}: {said} are not there. Finish "
            "unpacking it, or move the folder or the tar elsewhere"
        )


def _names_in(tar: Path) -> list[str]:
    """The members of a tar up to where it breaks off; it need not be complete here."""
    found: list[str] = []
    with contextlib.suppress(DataError), open(tar, "rb", buffering=0) as file:
        for member in tar_files.members(file.fileno(), tar):
            found.append(shown(member.name))
    return found


def _count_images(folder: Path, most: int) -> int:
    """Number of images in a folder and below it; counting stops at `most`."""
    count = 0
    for _, _, here in os.walk(os.fsencode(folder)):
        found = map(shown, here)
        count += sum(listing.named_as_image(n) and not names.is_clutter(n) for n in found)
        if count >= most:
            break
    return min(count, most)


def _patches(files: tuple[Path, ...], split: str) -> dict[bytes, tar_files.Member]:
    """The images of a split in the tar of patches, patch_images/train/*, by name."""
    if len(files) < 2:
        return {}
    with open(files[1], "rb", buffering=0) as file:
        found = list(tar_files.members(file.fileno(), files[1]))
    return {
        os.path.basename(member.name): member  # noqa: PTH119
        for member in found
        for folder in shown(member.name).split("/")[:-1]
        if names.split_of(folder) == split
    }


def _rows(
    found: Iterable[tar_files.Member],
    label: int,
    patches: dict[bytes, tar_files.Member],
    aside: Aside,
) -> Iterator[Any]:
    """Images of one class for `members`: those of the tar, then those of the patches."""
    images: tuple[list[Any], list[Any]] = ([], [])
    for member in found:
        if aside.is_image(shown(member.name)):
            name = os.path.basename(member.name)  # noqa: PTH119
            images[name in patches].append((name, patches.get(name, member)))
    for file, here in enumerate(images):
        yield (
            [name for name, _ in here],
            [label] * len(here),
            [member.size for _, member in here],
            file,
            [member.offset for _, member in here],
        )


def _bar(path: Path, size: int) -> Any:
    title = f"index of {shown(path)}"
    return progress_bar(total=size, desc=title, unit="B", unit_scale=True, delay=1.0)
