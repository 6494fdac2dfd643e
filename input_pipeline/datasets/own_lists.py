"""Lists of image files with the class of each: CSV or JSON lines."""

import array
import csv
import dataclasses
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
from input_pipeline.sources import Examples, digest, load_arrays, save_arrays

SUFFIXES = (".csv", ".jsonl")
_SPLITS = tuple(names.SPLITS)
_FORM = (
    "a CSV begins with the line path,label (or path,label,split), JSON lines are "
    '{"path": ..., "label": ...}'
)


class _Table(NamedTuple):
    """The lines of a list, as columns.

    Attributes:
      paths: bytes [lines].
      labels: int32 [lines], places in `classes`; 0 where there are none, and so no classes.
      splits: int8 [lines], places in `_SPLITS`; -1 where none is said.
      lines: int32 [lines]: number of the line, from 1 on.
      classes: str [classes].
    """

    paths: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    lines: np.ndarray
    classes: np.ndarray


def find(root: Path, cache_dir: Path) -> Place | None:
    """Reads the list `root`, or the lists train.csv, val.jsonl and the like in a directory `root`.

    Lists in a directory are ignored if its split folders hold class folders. Paths in a list are
    relative to the list's directory. A column `split` may use any spelling that a split folder may
    have; without this column, all lines are of the split that the file is named as, or of train.

    The parsed list is kept in `cache_dir` until the list changes.

    Returns:
      The lists' splits; None if there is no list.

    Raises:
      DataError: a file is not a valid list, a class has no name, or a path is in two classes or
        splits.
    """
    if not root.is_dir():
        if root.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"data.dir={shown(root)}: a file, not a directory, and no list of images "
                f"(*.csv or *.jsonl; {_FORM})"
            )
        return _place(root, {names.split_of(root.stem) or "train": root}, cache_dir)
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
    return _place(root, lists, cache_dir) if lists else None


def files_in(root: Path) -> list[Path]:
    """The lists that lie in a directory, by what their names end in."""
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
    return [path for path in found if path.is_file() and not names.is_clutter(path.name)]


def _place(root: Path, lists: dict[str, Path], cache_dir: Path) -> Place:
    all_tables = {path: _table(path, split, cache_dir) for split, path in lists.items()}
    bare = {path: table for path, table in all_tables.items() if not len(table.classes)}
    if bare and len(bare) == len(lists):
        raise DataError(f"{shown(root)}: a list of images without labels, and no other list")
    of_list = [path for path in lists.values() if path not in bare]
    tables = [all_tables[path] for path in of_list]
    classes, label_of = np.unique(
        np.concatenate([table.classes for table in tables]), return_inverse=True
    )
    before = np.cumsum([0, *(len(table.classes) for table in tables)])
    table = _Table(
        np.concatenate([table.paths for table in tables]),
        np.concatenate(
            [label_of[of.labels + first] for of, first in zip(tables, before, strict=False)]
        ).astype(np.int32),
        np.concatenate([table.splits for table in tables]),
        np.concatenate([table.lines for table in tables]),
        classes,
    )
    home = np.repeat(np.arange(len(tables)), [len(table.paths) for table in tables])
    again = _again(table, home, of_list)
    kept = np.setdiff1d(np.arange(len(table.paths)), again)
    splits = {}
    for number, split in enumerate(_SPLITS):
        rows = kept[table.splits[kept] == number]
        if len(rows):
            where = of_list[home[rows[0]]]
            here = table._replace(
                paths=table.paths[rows], labels=table.labels[rows], lines=table.lines[rows]
            )
            own = classes[np.unique(here.labels)].tolist()
            splits[split] = Listed(where, own, functools.partial(_opened, where, here))
    for path, table in bare.items():
        unlabelled = functools.partial(_unlabelled, path, table)
        splits["test"] = Listed(path, [], functools.partial(_opened, path, table), unlabelled)
    named = ", ".join(path.name for path in of_list)
    twice = f"{shown(root)}: {len(again):,} lines that stand twice count once"
    return Place(
        splits,
        {split: f"{named} lists no image for it" for split in _SPLITS},
        [twice] if len(again) else [],
        layout=f"lists of files: {named}",
        labels_from=f"label in {named}",
        called="classes",
        looked_for="a list names a class in each line",
    )


def _again(table: _Table, home: np.ndarray, of_list: Sequence[Path]) -> np.ndarray:
    """Finds the lines that repeat an earlier line's path with the same class and split.

    Args:
      table: the lines of all lists.
      home: for each line, the index of its list.
      of_list: the lists.

    Raises:
      DataError: a path is repeated with another class or split.
    """
    order = np.argsort(table.paths, kind="stable")
    same = np.flatnonzero(table.paths[order[1:]] == table.paths[order[:-1]])
    first, second = order[same], order[same + 1]
    differ = (table.labels[first] != table.labels[second]) | (
        table.splits[first] != table.splits[second]
    )
    if differ.any():
        n = np.flatnonzero(differ)[0]
        said = [
            f"{str(table.classes[table.labels[row]])!r} in {_SPLITS[table.splits[row]]}"
            for row in (second[n], first[n])
        ]
        raise DataError(
            f"{shown(of_list[home[second[n]]])}: line {table.lines[second[n]]}: "
            f"{shown(bytes(table.paths[first[n]]))} is {said[0]}, and {said[1]} by line "
            f"{table.lines[first[n]]} of {of_list[home[first[n]]].name}; leave one of them there"
        )
    return second


def _table(path: Path, split: str, cache_dir: Path) -> _Table:
    """What a list says, from the cache or from the file; `split` where it says none itself."""
    content = folders.read_file(os.fsencode(path))
    cache = cache_dir / f"list-{digest(shown(path.resolve()))}.npz"
    state = digest(content)
    saved = load_arrays(cache, "state", *_Table._fields)
    if saved is None or saved["state"] != state:
        saved = _read(path, content)._asdict()
        save_arrays(cache, state=np.array(state), **saved)
    table = _Table(*(saved[field] for field in _Table._fields))
    said = np.where(table.splits < 0, _SPLITS.index(split), table.splits)
    return table._replace(splits=said)


def _read(path: Path, content: bytes) -> _Table:
    """The lines of a list.

    Raises:
      DataError: the file is not UTF-8 text, or a line is invalid; the message names the first.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{shown(path)}: line {line}: no UTF-8; save the list as UTF-8") from error
    read = _json_lines if path.suffix.lower() == ".jsonl" else _csv_lines
    paths: list[bytes] = []
    labels, splits, lines = array.array("i"), array.array("b"), array.array("i")
    classes: dict[str, int] = {}
    of_test, bare = _is_of_test(path), 0
    for line, entry in read(path, text):
        file, label, split = (entry.get(field) for field in ("path", "label", "split"))
        if label is None and of_test and split is None:
            label, bare = "test", bare or line
        if isinstance(label, float):
            raise _wrong(path, line, f"label {label} is neither text nor a whole number")
        if not isinstance(file, str) or not isinstance(label, str | int):
            raise _wrong(path, line, "no path, or no label")
        file, label = file.strip(), str(label).strip()
        if not file or not label or "\0" in file:
            raise _wrong(path, line, "no path, or no label")
        said = "" if split is None else str(split).strip()
        named = names.split_of(said)
        if said and named is None:
            raise _wrong(path, line, f"split {said!r} is none of {', '.join(_SPLITS)}")
        try:  # names on a disk may be no UTF-8; what JSON can write is more than either
            (file + label).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise _wrong(path, line, f"half a letter in {file!a}, {label!a}") from error
        paths.append(posixpath.normpath(file).encode("utf-8", "surrogateescape"))
        labels.append(classes.setdefault(label, len(classes)))
        splits.append(-1 if named is None else _SPLITS.index(named))
        lines.append(line)
    if not paths:
        raise DataError(f"{shown(path)}: lists no images; {_FORM}")
    if bare:
        if len(classes) > 1:
            raise _wrong(path, bare, "no label, which other lines have")
        classes = {}
    return _Table(
        np.array(paths, np.bytes_),
        np.array(labels, np.int32),
        np.array(splits, np.int8),
        np.array(lines, np.int32),
        np.array(list(classes), np.str_),
    )


def _is_of_test(path: Path) -> bool:
    """Whether the list may do without labels."""
    return names.split_of(path.stem) == "test"


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, str | None]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip().casefold() for cell in cells]
                if {"path", "label"} <= set(columns) or (
                    "path" in columns and "split" not in columns and _is_of_test(path)
                ):
                    continue
                # Without a line of names: the first file is there, or is one by its suffix.
                if len(cells) != 2 or not folders.named_as_image(cells[0].strip()):
                    raise _wrong(path, reader.line_num, _other_columns(cells))
                columns = ["path", "label"]
            if len(cells) != len(columns):
                raise _wrong(
                    path, reader.line_num, f"{len(cells)} cells, and {len(columns)} columns"
                )
            yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise _wrong(path, reader.line_num, str(error)) from error


def _other_columns(cells: Sequence[str]) -> str:
    said = f"columns {names.listed(cells)}"
    for mark, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(cells) == 1 and mark in cells[0]:
            return f"{said}: parted by {called}, not by commas"
    lacking = [name for name in ("path", "label") if name not in map(str.casefold, cells)]
    return f"{said}: none is called {' or '.join(lacking)}"


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


def _opened(path: Path, table: _Table, class_names: Sequence[str], cache_dir: Path) -> Examples:
    """The examples of a list in the order of a tree: by class, then by path.

    Raises:
      DataError: a class of another name, or files that are not there.
    """
    number = {names.key(name): label for label, name in enumerate(class_names)}
    label_of = np.array([number.get(names.key(name), -1) for name in table.classes.tolist()])
    unknown = np.flatnonzero(label_of[table.labels] < 0)
    if len(unknown):
        row = unknown[0]
        raise DataError(
            f"{shown(path)}: line {table.lines[row]}: {str(table.classes[table.labels[row]])!r} is "
            f"not one of the {len(class_names)} classes ({names.listed(class_names)})"
        )
    order = np.lexsort((table.paths, table.labels))  # `classes` are sorted
    paths, labels = table.paths[order], label_of[table.labels[order]].astype(np.int32)
    prefix = os.fsencode(path.parent) + b"/"
    sizes = _sizes(prefix, paths, f"files of {shown(path)}", cache_dir)
    missing = order[sizes < 0]
    if len(missing):
        rows = missing[np.argsort(table.lines[missing])]
        first = [f"{shown(bytes(table.paths[n]))} (line {table.lines[n]})" for n in rows.tolist()]
        raise DataError(
            f"{shown(path)}: {len(missing):,} of {len(paths):,} paths are no files: "
            f"{names.listed(first, 3)}. Paths are relative to {shown(path.parent)}/; mend or "
            "remove these lines"
        )
    return Examples(
        count=len(paths),
        read=lambda row: (folders.read_file(_whole(prefix, paths[row])), int(labels[row])),
        name=lambda row: shown(_whole(prefix, paths[row])),
        fingerprint=digest(paths.tobytes(), sizes.tobytes(), labels.tobytes(), *class_names),
        labels=lambda: labels,
    )


def _unlabelled(path: Path, table: _Table, cache_dir: Path) -> Examples:
    """The examples of a list without labels, by path; their label is -1."""
    rows = np.sort(np.unique(table.paths, return_index=True)[1])
    once = table._replace(
        paths=table.paths[rows],
        labels=table.labels[rows],
        lines=table.lines[rows],
        classes=np.array(["test"]),
    )
    listed = _opened(path, once, ["test"], cache_dir)
    return dataclasses.replace(
        listed,
        read=lambda row: (listed.read(row)[0], -1),
        fingerprint=digest("unlabelled", listed.fingerprint),
        labels=lambda: np.full(listed.count, -1, np.int32),
    )


def _whole(prefix: bytes, path: np.bytes_) -> bytes:
    """A path with the directory before it that it is relative to."""
    return os.path.join(prefix, bytes(path))  # noqa: PTH118 (bytes)


def _sizes(prefix: bytes, paths: np.ndarray, title: str, cache_dir: Path) -> np.ndarray:
    """Size of every file in bytes, int64 [paths]; -1 where there is no file.

    The sizes are kept in `cache_dir`, and read again when a file was added to one of the folders,
    removed or renamed, as for class folders.
    """

    def size(row: int) -> int:
        try:
            about = os.stat(_whole(prefix, paths[row]))  # noqa: PTH116 (bytes)
        except OSError:
            return -1
        return about.st_size if stat.S_ISREG(about.st_mode) else -1

    cache = cache_dir / f"sizes-{digest(prefix, paths.tobytes())}.npz"
    saved = load_arrays(cache, "sizes", "folders", "changed")
    if saved is not None:
        there = zip(saved["folders"].tolist(), saved["changed"].tolist(), strict=True)
        if all(folders.changed(folder) == at for folder, at in there):
            return saved["sizes"]
    holding = {os.path.dirname(_whole(prefix, path)) for path in paths}  # noqa: PTH120 (bytes)
    changed = {folder: folders.changed(folder) for folder in sorted(holding)}
    sizes = np.fromiter(of_each(size, len(paths), 8, title, " files"), np.int64, len(paths))
    if sizes.min() >= 0 and folders.settled(changed.values()):
        of_folders = np.array(list(changed.values()), np.int64)
        save_arrays(cache, sizes=sizes, folders=np.array(list(changed)), changed=of_folders)
    return sizes
