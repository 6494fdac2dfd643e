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

from input_pipeline import folders, listing, names
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
      labels: int32 [lines], indices in `classes`; 0 in a list without labels.
      splits: int8 [lines], indices in `_SPLITS`; -1 where the line names none.
      lines: int32 [lines], line numbers from 1 on.
      classes: str [classes]; empty in a list without labels.
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
    have. Without this column, the file's name tells the split of all lines; by default it is train.

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
    """The lists in a directory: files with a suffix of `SUFFIXES`, sorted."""
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
    return [path for path in found if path.is_file() and not names.is_clutter(path.name)]


def _place(root: Path, lists: dict[str, Path], cache_dir: Path) -> Place:
    all_tables = {path: _table(path, split, cache_dir) for split, path in lists.items()}
    unlabelled_tables = {
        path: table for path, table in all_tables.items() if not len(table.classes)
    }
    if unlabelled_tables and len(unlabelled_tables) == len(lists):
        raise DataError(f"{shown(root)}: a list of images without labels, and no other list")
    labelled_lists = [path for path in lists.values() if path not in unlabelled_tables]
    tables = [all_tables[path] for path in labelled_lists]
    classes, label_of = np.unique(
        np.concatenate([table.classes for table in tables]), return_inverse=True
    )
    class_offsets = np.cumsum([0, *(len(table.classes) for table in tables)])
    table = _Table(
        np.concatenate([table.paths for table in tables]),
        np.concatenate(
            [label_of[t.labels + offset] for t, offset in zip(tables, class_offsets, strict=False)]
        ).astype(np.int32),
        np.concatenate([table.splits for table in tables]),
        np.concatenate([table.lines for table in tables]),
        classes,
    )
    list_of_line = np.repeat(np.arange(len(tables)), [len(table.paths) for table in tables])
    repeated = _repeated(table, list_of_line, labelled_lists)
    kept = np.setdiff1d(np.arange(len(table.paths)), repeated)
    splits = {}
    for number, split in enumerate(_SPLITS):
        rows = kept[table.splits[kept] == number]
        if len(rows):
            first_list = labelled_lists[list_of_line[rows[0]]]
            split_table = table._replace(
                paths=table.paths[rows], labels=table.labels[rows], lines=table.lines[rows]
            )
            split_classes = classes[np.unique(split_table.labels)].tolist()
            splits[split] = Listed(
                first_list, split_classes, functools.partial(_opened, first_list, split_table)
            )
    for path, unlabelled_table in unlabelled_tables.items():
        opened = functools.partial(_opened, path, unlabelled_table)
        unlabelled = functools.partial(_unlabelled, path, unlabelled_table)
        splits["test"] = Listed(path, [], opened, unlabelled)
    named = ", ".join(path.name for path in labelled_lists)
    repeated_note = f"{shown(root)}: {len(repeated):,} lines that stand twice count once"
    return Place(
        splits,
        {split: f"{named} lists no image for it" for split in _SPLITS},
        [repeated_note] if len(repeated) else [],
        layout=f"lists of files: {named}",
        labels_from=f"label in {named}",
        called="classes",
        looked_for="a list names a class in each line",
    )


def _repeated(table: _Table, list_of_line: np.ndarray, lists: Sequence[Path]) -> np.ndarray:
    """Finds the lines that repeat an earlier line's path with the same class and split.

    Args:
      table: the lines of all lists.
      list_of_line: int [lines], the index in `lists` of the list that holds the line.
      lists: the lists.

    Raises:
      DataError: a path is repeated with another class or split.
    """
    order = np.argsort(table.paths, kind="stable")
    repeats = np.flatnonzero(table.paths[order[1:]] == table.paths[order[:-1]])
    first, second = order[repeats], order[repeats + 1]
    conflicts = (table.labels[first] != table.labels[second]) | (
        table.splits[first] != table.splits[second]
    )
    if conflicts.any():
        conflict = np.flatnonzero(conflicts)[0]
        earlier, later = first[conflict], second[conflict]
        said = [
            f"{str(table.classes[table.labels[row]])!r} in {_SPLITS[table.splits[row]]}"
            for row in (later, earlier)
        ]
        raise DataError(
            f"{shown(lists[list_of_line[later]])}: line {table.lines[later]}: "
            f"{shown(bytes(table.paths[earlier]))} is {said[0]}, and {said[1]} by line "
            f"{table.lines[earlier]} of {lists[list_of_line[earlier]].name}; leave one of them "
            "there"
        )
    return second


def _table(path: Path, split: str, cache_dir: Path) -> _Table:
    """The lines of a list, from the cache or the file; lines that name no split are of `split`."""
    content = folders.read_file(os.fsencode(path))
    cache = cache_dir / f"list-{digest(shown(path.resolve()))}.npz"
    state = digest(content)
    saved = load_arrays(cache, "state", *_Table._fields)
    if saved is None or saved["state"] != state:
        saved = _read(path, content)._asdict()
        save_arrays(cache, state=np.array(state), **saved)
    table = _Table(*(saved[field] for field in _Table._fields))
    splits = np.where(table.splits < 0, _SPLITS.index(split), table.splits)
    return table._replace(splits=splits)


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
    may_lack_labels, unlabelled_line = _is_of_test(path), 0
    for line, entry in read(path, text):
        file, label, split = (entry.get(field) for field in ("path", "label", "split"))
        if label is None and may_lack_labels and split is None:
            label, unlabelled_line = "test", unlabelled_line or line
        if isinstance(label, float):
            raise _wrong(path, line, f"label {label} is neither text nor a whole number")
        if not isinstance(file, str) or not isinstance(label, str | int):
            raise _wrong(path, line, "no path, or no label")
        file, label = file.strip(), str(label).strip()
        if not file or not label or "\0" in file:
            raise _wrong(path, line, "no path, or no label")
        split_name = "" if split is None else str(split).strip()
        known_split = names.split_of(split_name)
        if split_name and known_split is None:
            raise _wrong(path, line, f"split {split_name!r} is none of {', '.join(_SPLITS)}")
        # Surrogates U+DC80 to U+DCFF stand for bytes of a file name that is not UTF-8. JSON can
        # hold other surrogates, which no file name has.
        try:
            (file + label).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise _wrong(path, line, f"half a letter in {file!a}, {label!a}") from error
        paths.append(posixpath.normpath(file).encode("utf-8", "surrogateescape"))
        labels.append(classes.setdefault(label, len(classes)))
        splits.append(-1 if known_split is None else _SPLITS.index(known_split))
        lines.append(line)
    if not paths:
        raise DataError(f"{shown(path)}: lists no images; {_FORM}")
    if unlabelled_line:
        if len(classes) > 1:
            raise _wrong(path, unlabelled_line, "no label, which other lines have")
        classes = {}
    return _Table(
        np.array(paths, np.bytes_),
        np.array(labels, np.int32),
        np.array(splits, np.int8),
        np.array(lines, np.int32),
        np.array(list(classes), np.str_),
    )


def _is_of_test(path: Path) -> bool:
    """Whether a list is named as the test split; such a list may lack labels."""
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
                # There is no line of column names if the first path has an image's suffix.
                if len(cells) != 2 or not listing.named_as_image(cells[0].strip()):
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
    columns = f"columns {names.listed(cells)}"
    for separator, plural in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(cells) == 1 and separator in cells[0]:
            return f"{columns}: parted by {plural}, not by commas"
    missing = [name for name in ("path", "label") if name not in map(str.casefold, cells)]
    return f"{columns}: none is called {' or '.join(missing)}"


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
    """The examples of a list in the order of class folders: by class, then by path.

    Raises:
      DataError: a class is not in `class_names`, or files are missing.
    """
    label_of_key = {names.key(name): label for label, name in enumerate(class_names)}
    label_of = np.array([label_of_key.get(names.key(name), -1) for name in table.classes.tolist()])
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
        absent = [
            f"{shown(bytes(table.paths[row]))} (line {table.lines[row]})" for row in rows.tolist()
        ]
        raise DataError(
            f"{shown(path)}: {len(missing):,} of {len(paths):,} paths are no files: "
            f"{names.listed(absent, 3)}. Paths are relative to {shown(path.parent)}/; mend or "
            "remove these lines"
        )
    return Examples(
        count=len(paths),
        read=lambda row: (folders.read_file(_full_path(prefix, paths[row])), int(labels[row])),
        name=lambda row: shown(_full_path(prefix, paths[row])),
        fingerprint=digest(paths.tobytes(), sizes.tobytes(), labels.tobytes(), *class_names),
        labels=lambda: labels,
    )


def _unlabelled(path: Path, table: _Table, cache_dir: Path) -> Examples:
    """The examples of a list without labels, sorted by path, each path once; the labels are -1."""
    first_rows = np.sort(np.unique(table.paths, return_index=True)[1])
    distinct = table._replace(
        paths=table.paths[first_rows],
        labels=table.labels[first_rows],
        lines=table.lines[first_rows],
        classes=np.array(["test"]),
    )
    examples = _opened(path, distinct, ["test"], cache_dir)
    return dataclasses.replace(
        examples,
        read=lambda row: (examples.read(row)[0], -1),
        fingerprint=digest("unlabelled", examples.fingerprint),
        labels=lambda: np.full(examples.count, -1, np.int32),
    )


def _full_path(prefix: bytes, path: np.bytes_) -> bytes:
    """The full path of a file whose path is relative to the directory `prefix`."""
    return os.path.join(prefix, bytes(path))  # noqa: PTH118 (bytes)


def _sizes(prefix: bytes, paths: np.ndarray, title: str, cache_dir: Path) -> np.ndarray:
    """Size of every file in bytes, int64 [paths]; -1 where there is no file.

    The sizes are kept in `cache_dir` until a file is added to one of the files' folders, removed or
    renamed, as for class folders.
    """

    def size(row: int) -> int:
        try:
            status = os.stat(_full_path(prefix, paths[row]))  # noqa: PTH116 (bytes)
        except OSError:
            return -1
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    cache = cache_dir / f"sizes-{digest(prefix, paths.tobytes())}.npz"
    saved = load_arrays(cache, "sizes", "folders", "changed")
    if saved is not None:
        saved_times = zip(saved["folders"].tolist(), saved["changed"].tolist(), strict=True)
        if all(folders.changed(folder) == time for folder, time in saved_times):
            return saved["sizes"]
    parents = {os.path.dirname(_full_path(prefix, path)) for path in paths}  # noqa: PTH120 (bytes)
    changed = {folder: folders.changed(folder) for folder in sorted(parents)}
    sizes = np.fromiter(of_each(size, len(paths), 8, title, " files"), np.int64, len(paths))
    if sizes.min() >= 0 and folders.settled(changed.values()):
        of_folders = np.array(list(changed.values()), np.int64)
        save_arrays(cache, sizes=sizes, folders=np.array(list(changed)), changed=of_folders)
    return sizes
