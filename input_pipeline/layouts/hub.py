"""Datasets as the Hugging Face Hub has them: Parquet files, and Arrow files of `save_to_disk`.

Column `image` is a struct of `bytes` and `path`, column `label` a number. pyarrow alone reads them.
"""

import functools
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline import folders, names
from input_pipeline.errors import DataError, first_line
from input_pipeline.layouts.members import Members, Stored, members, mixed, read_at
from input_pipeline.names import listed, shown
from input_pipeline.report import progress_bar

# train-00000-of-00294.parquet
_PARQUET = re.compile(r"(.+?)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet")
# The Hub's ImageNet has the synset at the end as well: n01440764_10026_n01440764.JPEG.
_SYNSET_TWICE = re.compile(r"((?:n\d{8}|ILSVRC\d{4}_val)_\d+)_n\d{8}(\.\w+)")


def find_parquet(root: Path) -> tuple[dict[str, Stored], list[Path]]:
    """Finds the Parquet files in a directory or in its `data` folder.

    Returns:
      The splits by name; and the Parquet files that belong to no split.

    Raises:
      DataError: some files of a split are missing, or its files come from two exports.
    """
    found: dict[str, Stored] = {}
    left: list[Path] = []
    for folder in (root / "data", root):
        of_split: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("*.parquet")):
            match = _PARQUET.fullmatch(path.name)
            split = names.split_of(match[1] if match else path.stem)
            if split is not None:
                of_split.setdefault(split, []).append(path)
            elif not names.is_clutter(path.name):
                left.append(path)
        for split, paths in of_split.items():
            files = _one_set(split, paths)
            if split in found:
                raise DataError(
                    f"{shown(root)}: Parquet files of the {split} split lie there and in data/; "
                    "leave one of them there"
                )
            found[split] = Stored(
                f"Parquet files ({len(files)})",
                files,
                functools.partial(_list_parquet, files),
                _Parquet().read,
                cost="an image read at random costs a whole row group of Parquet; "
                "--mode=prepare_data, which reads them in order, pays",
                form="{split}-*.parquet",
            )
    return found, left


def _one_set(split: str, paths: Sequence[Path]) -> tuple[Path, ...]:
    """The files of a split in the order of their numbers.

    Raises:
      DataError: some are missing, two have the same number, or they come from two exports.
    """
    sets: dict[tuple[str, str], dict[int, tuple[str, Path]]] = {}
    for path in paths:
        match = _PARQUET.fullmatch(path.name)
        of, number, total = (match[1], match[2], match[3]) if match else (path.stem, "0", "")
        _, other = sets.setdefault((of, total), {}).setdefault(int(number), (number, path))
        if other != path:
            raise _two_sets(split, other, path)
    if len(sets) > 1:
        raise _two_sets(
            split, *(next(iter(parts.values()))[1] for parts in list(sets.values())[:2])
        )
    (((_, total), parts),) = sets.items()
    files = tuple(path for _, path in sorted(parts.values()))
    if total and (len(files) != int(total) or max(parts) >= int(total)):
        raise DataError(
            f"{shown(files[0])}: {len(files)} files of {total}; some are missing, or of another "
            "download: get them again"
        )
    return files


def _two_sets(split: str, first: Path, second: Path) -> DataError:
    return DataError(
        f"{shown(first.parent)}: {shown(first.name)} and {shown(second.name)} are two sets of "
        f"Parquet files of the {split} split; leave one of them there"
    )


def find_arrow(root: Path) -> tuple[dict[str, Stored], list[Path]]:
    """Finds what `save_to_disk` wrote in a directory: one split, or a folder for each split.

    A single dataset that names no split is the training split.

    Returns:
      The splits by name; and the folders that belong to no split.

    Raises:
      DataError: a state.json is damaged, files are missing, or two folders are of one split.
    """
    saved: dict[Path, tuple[str | None, tuple[Path, ...]]] = {}
    for path in (root / "state.json", *sorted(root.glob("*/state.json"))):
        folder = path.parent
        if not path.is_file() or (folder != root and names.is_clutter(folder.name, folder=True)):
            continue
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if "_data_files" not in state:  # another program's state.json
                continue
            files = tuple(folder / str(entry["filename"]) for entry in state["_data_files"])
            split = names.split_of(folder.name) or names.split_of(str(state.get("_split")))
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise DataError(f"{shown(path)}: damaged ({first_line(error)})") from error
        saved[folder] = (split or ("train" if folder == root else None), files)
    left = [folder for folder, (split, _) in saved.items() if split is None]
    alone = len(left) == len(saved)
    of_split: dict[str, Path] = {}
    found = {}
    for folder, (named, files) in saved.items():
        split = named or ("train" if alone else None)
        if split is None:
            continue
        if split in of_split:
            raise mixed(root, split, *(f"{shown(p.name)}/" for p in (of_split[split], folder)))
        of_split[split] = folder
        missing = [shown(path.name) for path in files if not path.is_file()]
        if missing or not files:
            raise DataError(f"{shown(folder)}: {listed(missing) or 'Arrow files'} missing")
        found[split] = Stored(
            f"Arrow files of save_to_disk ({len(files)})",
            files,
            functools.partial(_list_arrow, files),
            read_at,
            form="{split}/state.json",
        )
    return found, [] if alone else left


def class_names(path: Path) -> tuple[str, ...]:
    """The class names in the schema of a Parquet or Arrow file; empty if it has none.

    Args:
      path: of the file.
    """
    try:
        said = json.loads(_schema(path).metadata[b"huggingface"])
        found = tuple(str(name) for name in said["info"]["features"]["label"]["names"])
        _ = [name.encode() for name in found]  # JSON can write what no text has
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return found


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            "Parquet and Arrow files need pyarrow: pip install 'vision-models[parquet]' "
            f"({first_line(error)})"
        ) from error
    return pyarrow


def _schema(path: Path) -> Any:
    """The schema of a file, checked to have the required columns.

    Raises:
      DataError: a column is missing or of another type, or the file cannot be read.
    """
    pa = _pyarrow()
    try:
        with folders.readable():
            if path.suffix == ".parquet":
                schema = pa.parquet.read_schema(path)
            else:
                with pa.memory_map(os.fspath(path)) as file:
                    schema = pa.ipc.open_stream(file).schema
    except pa.ArrowException as error:
        raise _damaged(path, error) from error
    image = schema.field("image").type if "image" in schema.names else None
    inside = [field.name for field in image] if isinstance(image, pa.StructType) else []
    label = schema.field("label").type if "label" in schema.names else None
    if "bytes" not in inside or label is None or not pa.types.is_integer(label):
        columns = [f"{field.name} ({str(field.type)[:60]})" for field in schema]
        raise DataError(
            f"{shown(path)}: no labelled images: looked for the columns image (a struct of bytes "
            f"and path) and label (whole numbers), found {listed(columns)}"
        )
    return schema


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{shown(path)}: damaged or cut short ({first_line(error)}); get it again")


def _names(paths: Any, count: int) -> list[bytes]:
    """File names of a column of paths, as the challenge gave them; empty where there are none."""
    if paths is None:
        return [b""] * count
    bare = (re.split(r"[/\\]", path or "")[-1] for path in paths.to_pylist())
    return [os.fsencode(_SYNSET_TWICE.sub(r"\1\2", name)) for name in bare]


def _labels(column: Any, path: Path) -> np.ndarray:
    """Labels, int64; -1 where there are none, as in the Hub's test split."""
    if column.null_count:
        raise DataError(f"{shown(path)}: {column.null_count} rows without a label")
    labels = column.to_numpy()
    largest = np.iinfo(np.int32).max
    if len(labels) and not -1 <= labels.min() <= labels.max() <= largest:
        raise DataError(
            f"{shown(path)}: labels {labels.min()} to {labels.max()}, where 0 to {largest} can be"
        )
    return labels


def _list_parquet(files: tuple[Path, ...]) -> Members:
    pa = _pyarrow()

    def rows() -> Iterator[Any]:
        title = f"index of {shown(files[0].parent)}"
        for number, path in enumerate(progress_bar(files, desc=title, unit=" files", delay=1.0)):
            fields = [field.name for field in _schema(path).field("image").type]
            wanted = ["label", *(["image.path"] if "path" in fields else [])]
            try:
                with pa.parquet.ParquetFile(path) as file:
                    table = file.read(wanted, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from error
            count = table.num_rows
            paths = table["image"].combine_chunks().field("path") if len(wanted) > 1 else None
            labels = _labels(table["label"], path)
            yield _names(paths, count), labels, np.full(count, -1), number, np.arange(count)

    return members(rows(), class_names(files[0]))


class _Parquet:
    """Reads images of Parquet files by whole row groups, and caches the last few groups."""

    _KEPT = 4

    def __init__(self) -> None:
        self._footers: dict[Path, tuple[Any, np.ndarray]] = {}
        self._groups: dict[tuple[Path, int], Future[Any]] = {}
        self._lock = threading.Lock()

    def read(self, path: Path, row: int, size: int, name: bytes) -> bytes:
        """The bytes of the image in a row of a file.

        Raises:
          DataError: the file cannot be read, or has no bytes there.
        """
        pa = _pyarrow()
        try:
            if path not in self._footers:
                footer = pa.parquet.read_metadata(path)
                counts = [footer.row_group(n).num_rows for n in range(footer.num_row_groups)]
                self._footers[path] = footer, np.cumsum(counts)
            footer, ends = self._footers[path]
            group = int(np.searchsorted(ends, row, side="right"))
            images = self._group(path, footer, group)
            content = images[row - int(ends[group]) + len(images)].as_py()
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        if content is None:
            raise DataError(f"{shown(path)}: row {row} has no bytes of an image, only a path")
        return content

    def _group(self, path: Path, footer: Any, group: int) -> Any:
        """The images of a row group, read once however many threads ask for it."""
        with self._lock:
            asked = self._groups.get((path, group))
            first = asked is None
            if asked is None:
                asked = self._groups[path, group] = Future()
                while len(self._groups) > self._KEPT:
                    del self._groups[next(iter(self._groups))]
        if first:
            try:
                asked.set_result(_row_group(path, footer, group))
            except Exception as error:
                asked.set_exception(error)
        return asked.result()


def _row_group(path: Path, footer: Any, group: int) -> Any:
    with _pyarrow().parquet.ParquetFile(path, metadata=footer) as file:
        table = file.read_row_group(group, ["image.bytes"], use_threads=False)
    return table["image"].combine_chunks().field("bytes")


def _list_arrow(files: tuple[Path, ...]) -> Members:
    """Where the images lie: uncompressed in the files, so that they can be read without pyarrow."""
    pa = _pyarrow()

    def rows() -> Iterator[Any]:
        title = f"index of {shown(files[0].parent)}"
        for number, path in enumerate(progress_bar(files, desc=title, unit=" files", delay=1.0)):
            _schema(path)
            try:
                with pa.memory_map(os.fspath(path)) as file:
                    base, size = file.read_buffer().address, file.size()
                    file.seek(0)
                    for batch in pa.ipc.open_stream(file):
                        image = batch.column("image")
                        fields = [field.name for field in image.type]
                        paths = image.field("path") if "path" in fields else None
                        places, sizes = _bounds(image.field("bytes"), base, size, path)
                        labels = _labels(batch.column("label"), path)
                        yield _names(paths, len(labels)), labels, sizes, number, places
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from error

    return members(rows(), class_names(files[0]))


def _bounds(content: Any, base: int, size: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Offset in the file and length, in bytes, of each value of a binary column: int64 [rows] each.

    Args:
      content: the column, which lies in the mapped file.
      base, size: address of the mapped file, and its length in bytes.
      path: of the file, for messages.
    """
    if content.null_count:
        raise DataError(
            f"{shown(path)}: {content.null_count} rows have no bytes of an image, only a path; "
            "save the dataset anew with the images in it"
        )
    kind = np.int64 if str(content.type) == "large_binary" else np.int32
    _, offsets, data = content.buffers()
    ends = np.frombuffer(offsets, kind)[content.offset : content.offset + len(content) + 1]
    begin = data.address - base
    if not 0 <= begin <= size - data.size:
        raise DataError(f"{shown(path)}: compressed; save the dataset anew without compression")
    return begin + ends[:-1].astype(np.int64), np.diff(ends).astype(np.int64)
