"""WebDataset shards: tars in which an image and its class lie side by side, KEY.jpg and KEY.cls."""

import functools
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline import names
from input_pipeline.errors import DataError
from input_pipeline.layouts import tar_files
from input_pipeline.layouts.members import Aside, Members, Stored, members, mixed, read_at
from input_pipeline.names import listed, shown
from input_pipeline.report import progress_bar

# Prefix and number of a shard such as imagenet-train-000000.tar. The challenge's own tars do not
# match: n01440764.tar, ILSVRC2012_img_test_v10102019.tar.
_SHARD = re.compile(
    r"(?!n\d{8}\.|ILSVRC\d{4}_(?:img|images|bbox|devkit|DET|VID)_(?!\w*-\d{3,}\.tar))"
    r"(.*?)[-_.]?(\d{2,})\.tar"
)
# Keys that are the challenge's image names; the challenge's files end with .JPEG.
_CHALLENGE = re.compile(rb"(?:n\d{8}|ILSVRC\d{4}_(?:val|test))_\d+")


def find(root: Path) -> tuple[dict[str, Stored], list[Path]]:
    """Finds the shards in a directory, or in its split folders.

    The name of the shards or of their folder names the split; shards that name none are for
    training. A single tar that names no split, or an empty one, may be anything, and is left aside
    where other shards are found.

    Returns:
      The splits by name; and the other tars.

    Raises:
      DataError: the shards of a split have two prefixes, or a number in their sequence is missing.
    """
    rows: dict[str, dict[Path, dict[int, Path]]] = {}
    stray: set[Path] = set()
    folders = [p for p in sorted(root.iterdir()) if p.is_dir() and names.split_of(p.name)]
    for folder in (root, *folders):
        for path in folder.glob("*.tar"):
            match = _SHARD.fullmatch(path.name)
            if match is None or path.name.startswith("."):
                continue
            words = [folder.name] if folder != root else re.split(r"[-_.]", match[1])
            split = next(filter(None, map(names.split_of, words)), None)
            prefix = folder / match[1]
            rows.setdefault(split or "train", {}).setdefault(prefix, {})[int(match[2])] = path
            if split is None:
                stray.add(prefix)
    found, left = {}, []
    for split, named in rows.items():
        odd = [
            prefix
            for prefix, shards in named.items()
            if (len(shards) == 1 and prefix in stray)
            or not any(path.stat().st_size for path in shards.values())
        ]
        if len(named) > 1:
            left += [path for prefix in odd for path in named.pop(prefix).values()]
        if not named:
            continue
        if len(named) > 1:
            first, second = (f"{shown(name)}-*.tar" for name in sorted(named)[:2])
            raise mixed(root, split, first, second)
        ((prefix, shards),) = named.items()
        _check_complete(prefix, shards)
        files = tuple(shards[number] for number in sorted(shards))
        found[split] = Stored(
            f"WebDataset shards ({len(files)})",
            files,
            functools.partial(_list, files),
            read_at,
            form="NAME-{short}-000000.tar",
            stray=prefix in odd,
        )
    return found, left


def _check_complete(prefix: Path, shards: dict[int, Path]) -> None:
    numbers = sorted(shards)
    if numbers[-1] - numbers[0] + 1 == len(numbers):
        return
    count = numbers[-1] + 1 - len(numbers)
    # Only the first few gaps are listed: a number may be a date.
    gaps = itertools.islice((n for n in range(numbers[-1]) if n not in shards), min(count, 5))
    more = f" and {count - 5} more" if count > 5 else ""
    raise DataError(
        f"{shown(prefix)}-*.tar: {count} of {numbers[-1] + 1} shards are missing "
        f"({', '.join(map(str, gaps))}{more}); get them again"
    )


def _list(files: tuple[Path, ...]) -> Members:
    left: dict[str, int] = {}
    aside = Aside()

    def rows() -> Iterator[Any]:
        title = f"index of {shown(files[0].parent)}"
        for number, path in enumerate(progress_bar(files, desc=title, unit=" files", delay=1.0)):
            yield _shard(path, number, left, aside)

    found = members(rows())
    said = [f"{count:,} *.{suffix}" for suffix, count in sorted(left.items())]
    notes = (f"{shown(files[0].parent)}: not used: {listed(said)}",) if said else ()
    return found._replace(notes=notes, ignored=aside.ignored)


def _shard(path: Path, number: int, left: dict[str, int], aside: Aside) -> Any:
    """Lists one shard, as a row for `members`."""
    images: dict[bytes, tuple[bytes, tar_files.Member]] = {}
    labels: dict[bytes, int] = {}
    with open(path, "rb", buffering=0) as file:
        for member in tar_files.members(file.fileno(), path):
            if aside.is_clutter(shown(member.name)):
                continue
            folder, _, base = member.name.rpartition(b"/")
            stem, _, suffix = base.partition(b".")
            key = folder + b"/" + stem
            kind = shown(suffix).lower()
            if kind == "cls":
                labels[key] = _label(os.pread(file.fileno(), member.size, member.offset), path, key)
            elif f".{kind}" in names.IMAGE_SUFFIXES:
                images[key] = (_name(stem, suffix), member)
            else:
                left[kind] = left.get(kind, 0) + 1
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        lacks = ".cls" if alone[0] in images else "image (.jpg, .png, ...)"
        raise DataError(
            f"{shown(path)}: {len(alone)} of its samples are not an image and a .cls "
            f"({shown(alone[0].lstrip(b'/'))} has no {lacks}); write the shards anew"
        )
    found = [images[key] for key in images]
    return (
        [name for name, _ in found],
        [labels[key] for key in images],
        [member.size for _, member in found],
        number,
        [member.offset for _, member in found],
    )


def _label(content: bytes, path: Path, key: bytes) -> int:
    try:
        label = int(content)
        return label if 0 <= label <= np.iinfo(np.int32).max else int("")
    except ValueError:
        raise DataError(
            f"{shown(path)}: the .cls of {shown(key.lstrip(b'/'))} is {shown(content[:30])!r}, no "
            "number of a class; write the shards anew"
        ) from None


def _name(stem: bytes, suffix: bytes) -> bytes:
    """The image's file name in the challenge; empty for keys that are only numbers."""
    if stem.isdigit():
        return b""
    return stem + (b".JPEG" if _CHALLENGE.fullmatch(stem) else b"." + suffix)
