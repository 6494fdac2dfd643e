"""Lists of image files with the class of each: CSV or JSON lines."""

import csv
import functools
import io
import json
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline import folders, names
from input_pipeline.datasets.layout import Listed, Place
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.side_by_side import of_each
from input_pipeline.sources import Examples, digest

SUFFIXES = (".csv", ".jsonl")
_FORM = (
    "a CSV begins with the line path,label (or path,label,split), JSON lines are "
    '{"path": ..., "label": ...}'
)


class _Row(NamedTuple):
    """A line of a list: its number from 1 on, and what stands there."""

    line: int
    path: str
    label: str
    split: str


def find(root: Path) -> Place | None:
    """What the list `root` has; or in a directory train.csv, val.jsonl and the like, if they count.

    They do not where folders named as splits hold class folders. Paths in a list are relative to
    the directory that it lies in. Its column `split`, if there is one, is in any spelling that a
    folder of the split may have; without it all are of the split that the file is named as, or
    for training.

    Raises:
      DataError: a file of another kind or form, a class without a name, a path in two classes or
        splits.
    """
    if not root.is_dir():
        if root.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"data.dir={shown(root)}: a file, not a directory, and no list of images "
                f"(*.csv or *.jsonl; {_FORM})"
            )
        return _place(root, {names.split_of(root.stem) or "train": root})
    if any(
        folders.class_folders(root / os.fsdecode(raw))
        for name, raw in folders.class_folders(root).items()
        if names.split_of(name)
    ):
        return None
    lists: dict[str, Path] = {}
    for path in files_in(root):
        split = names.split_of(path.stem)
        if split in lists:
            raise DataError(
                f"{root}: {lists[split].name} and {path.name} are both the {split} split; leave "
                "one of them there"
            )
        if split is not None:
            lists[split] = path
    return _place(root, lists) if lists else None


def files_in(root: Path) -> list[Path]:
    """The lists that lie in a directory, by what their names end in."""
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
    return [path for path in found if path.is_file() and not names.is_clutter(path.name)]


def _place(root: Path, lists: dict[str, Path]) -> Place:
    of_split: dict[str, list[_Row]] = {}
    home: dict[str, Path] = {}
    seen: dict[str, tuple[str, str, Path, int]] = {}
    twice = 0
    for split, path in lists.items():
        for row in _rows(path):
            entry = (row.label, row.split or split, path, row.line)
            other = seen.setdefault(row.path, entry)
            if other[:2] != entry[:2]:
                raise DataError(
                    f"{shown(path)}: line {row.line}: {row.path} is {entry[0]!r} in {entry[1]}, "
                    f"and {other[0]!r} in {other[1]} by line {other[3]} of {other[2].name}; leave "
                    "one of them there"
                )
            if other is not entry:
                twice += 1
                continue
            of_split.setdefault(entry[1], []).append(row)
            home[entry[1]] = path
    named = ", ".join(path.name for path in lists.values())
    notes = [f"{shown(root)}: {twice:,} lines that stand twice count once"] if twice else []
    return Place(
        {
            split: Listed(
                home[split],
                sorted({row.label for row in rows}),
                functools.partial(_opened, home[split], rows),
            )
            for split, rows in of_split.items()
        },
        {split: f"{named} lists no image for it" for split in names.SPLITS},
        notes,
        layout=f"lists of files: {named}",
        labels_from=f"label in {named}",
        called="classes",
        looked_for="a list names a class in each line",
    )


def _rows(path: Path) -> Iterator[_Row]:
    """The lines of a list.

    Raises:
      DataError: no text in UTF-8, or lines of another form; the message names the first.
    """
    content = folders.read_file(os.fsencode(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{shown(path)}: line {line}: no UTF-8; save the list as UTF-8") from error
    read = _json_lines if path.suffix.lower() == ".jsonl" else _csv_lines
    some = False
    for line, entry in read(path, text):
        wanted = [entry.get(field) for field in ("path", "label", "split")]
        if not isinstance(wanted[0], str) or not isinstance(wanted[1], str | int):
            raise _wrong(path, line, "no path, or no label")
        file, label = wanted[0].strip(), str(wanted[1]).strip()
        if not file or not label or "\0" in file:
            raise _wrong(path, line, "no path, or no label")
        said = "" if wanted[2] is None else str(wanted[2]).strip()
        split = names.split_of(said) if said else ""
        if split is None:
            raise _wrong(path, line, f"split {said!r} is none of train, validation and test")
        some = True
        yield _Row(line, posixpath.normpath(file), label, split)
    if not some:
        raise DataError(f"{shown(path)}: lists no images; {_FORM}")


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, str | None]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip().casefold() for cell in cells]
                if {"path", "label"} <= set(columns):
                    continue
                # Without a line of names: the first file is there, or is one by its suffix.
                if len(cells) != 2 or not folders.named_as_image(cells[0].strip()):
                    raise _wrong(path, reader.line_num, f"columns {names.listed(cells)}")
                columns = ["path", "label"]
            if len(cells) != len(columns):
                raise _wrong(
                    path, reader.line_num, f"{len(cells)} cells, and {len(columns)} columns"
                )
            yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise _wrong(path, reader.line_num, str(error)) from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, str | None]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            entry = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _wrong(path, line, "no JSON") from error
        if not isinstance(entry, dict):
            raise _wrong(path, line, "no JSON object")
        yield line, entry


def _wrong(path: Path, line: int, what: str) -> DataError:
    return DataError(f"{shown(path)}: line {line}: {what} ({_FORM})")


def _opened(
    path: Path, rows: Sequence[_Row], class_names: Sequence[str], cache_dir: Path
) -> Examples:
    """The examples of a list in the order of a tree: by class, then by path.

    Raises:
      DataError: a class of another name, or files that are not there.
    """
    label_of = {names.key(name): label for label, name in enumerate(class_names)}
    for row in rows:
        if names.key(row.label) not in label_of:
            raise DataError(
                f"{shown(path)}: line {row.line}: {row.label!r} is not one of the "
                f"{len(class_names)} classes ({names.listed(class_names)})"
            )
    encoded = [(row.path.encode("utf-8", "surrogateescape"), row) for row in rows]
    encoded.sort(key=lambda item: (item[1].label, item[0]))
    paths = np.array([raw for raw, _ in encoded])
    labels = np.array([label_of[names.key(row.label)] for _, row in encoded], np.int32)
    prefix = os.fsencode(path.parent) + b"/"

    def whole(row: int) -> bytes:
        return os.path.join(prefix, bytes(paths[row]))  # noqa: PTH118 (bytes)

    def size(row: int) -> int:
        """Of the file in bytes; -1 if there is none."""
        try:
            about = os.stat(whole(row))  # noqa: PTH116 (bytes)
        except OSError:
            return -1
        return about.st_size if stat.S_ISREG(about.st_mode) else -1

    count = len(paths)
    found = of_each(size, count, 8, f"files of {shown(path)}", " files")
    sizes = np.fromiter(found, np.int64, count)
    missing = sorted((encoded[n][1] for n in np.flatnonzero(sizes < 0)), key=lambda row: row.line)
    if missing:
        first = [f"{row.path} (line {row.line})" for row in missing]
        raise DataError(
            f"{shown(path)}: {len(missing):,} of {count:,} paths are no files: "
            f"{names.listed(first, 3)}. Paths are relative to {shown(path.parent)}/; mend or "
            "remove these lines"
        )
    return Examples(
        count=count,
        read=lambda row: (folders.read_file(whole(row)), int(labels[row])),
        name=lambda row: shown(whole(row)),
        fingerprint=digest(paths.tobytes(), sizes.tobytes(), labels.tobytes(), *class_names),
        labels=lambda: labels,
    )
