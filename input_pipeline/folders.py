"""Images in class folders: which files are read, and how the other files are reported."""

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from input_pipeline import annotation_folders, names
from input_pipeline.errors import DataError
from input_pipeline.listing import (
    Left,
    Listing,
    in_words,
    named_as_image,
    notes_on,
    odd_kind,
    without_waiting,
)
from input_pipeline.names import shown
from input_pipeline.report import progress_bar
from input_pipeline.sources import Examples, digest, load_arrays, save_arrays

# Counting files stops here; messages then say that there are more.
_MANY = 10_000


def class_folders(directory: Path) -> dict[str, bytes]:
    """Class folders in `directory`, sorted: class name -> name on disk in bytes.

    Hidden folders and those of file systems and archivers do not count, nor does a folder
    `Annotations` or `annotations` that holds annotation files.

    Raises:
      OSError: `directory` cannot be listed.
    """
    with os.scandir(os.fsencode(directory)) as entries:
        found = sorted(e.name for e in entries if e.is_dir())
    found = [name for name in found if not names.is_clutter(shown(name), folder=True)]
    for name in map(os.fsencode, annotation_folders.NAMES):
        if name in found and annotation_folders.is_one(directory / os.fsdecode(name)):
            found.remove(name)
    return {shown(name): name for name in found}


def holds_images(directory: Path) -> bool:
    """Whether any file directly in it has an image's suffix."""
    with os.scandir(os.fsencode(directory)) as entries:
        return any(named_as_image(shown(e.name)) for e in entries)


def count_files(directory: Path | bytes) -> str:
    """How many files are in a directory and below, in words."""
    count = 0
    for _, _, files in os.walk(os.fsencode(directory)):
        count += len(files)
        if count > _MANY:
            return f"more than {_MANY:,} files"
    return f"{count:,} file{'' if count == 1 else 's'}"


def unused(directory: Path, used: Sequence[str]) -> list[str]:
    """A list of one sentence on the files and folders that are not used; empty if all are.

    Args:
      directory: holds splits or class folders.
      used: names in it that are used.
    """
    with os.scandir(os.fsencode(directory)) as entries:
        found = sorted((shown(e.name), e.path if e.is_dir() else None) for e in entries)
    left = [
        f"{name}/ ({count_files(folder)})" if folder else name
        for name, folder in found
        if name not in used and not names.is_clutter(name)
    ]
    return [f"{shown(directory)}: not used: {names.listed(left)}"] if left else []


def count_clutter(directory: Path, used: Sequence[str] = ()) -> int:
    """Number of files and folders in a directory that are hidden, archives or a system's own.

    Args:
      directory: the directory.
      used: names in it that do not count, such as archives that images are read from.
    """
    with os.scandir(os.fsencode(directory)) as entries:
        found = [(shown(e.name), e.is_dir()) for e in entries]
    return sum(
        names.is_clutter(name, folder=is_folder) for name, is_folder in found if name not in used
    )


def from_folders(
    directory: Path, class_names: Sequence[str], cache_dir: Path, used: Sequence[str] = ()
) -> Examples:
    """Images in class folders, `directory/<class name>/*`.

    Images are sorted by path, and folders inside a class folder are included. Images are regular
    files with an image's suffix, or without a suffix but with an image's first bytes. Other files
    are counted by suffix in `notes`, and hidden files and those of systems in `ignored`. The list
    of files is kept in `cache_dir` and rebuilt when files were added to a folder, removed or
    renamed. (A file overwritten in place is read anew, but the fingerprint keeps its old size until
    the list is rebuilt.)

    Args:
      directory: holds the class folders.
      class_names: a folder's label is the index of its name in this list, in any Unicode spelling.
      cache_dir: where the list is kept.
      used: names of files beside the class folders that are used, such as those of annotations.

    Raises:
      DataError: a folder of another name, a class folder without images, images beside the class
        folders, or no permission.
    """
    with readable():
        index = _index(directory, class_names, cache_dir, used)
    paths, sizes, labels = index["paths"], index["sizes"], index["labels"]
    prefix = os.fsencode(directory) + b"/"

    def read(row: int) -> tuple[bytes, int]:
        return read_file(prefix + bytes(paths[row])), int(labels[row])

    return Examples(
        count=len(paths),
        read=read,
        name=lambda row: shown(prefix + bytes(paths[row])),
        fingerprint=digest(paths.tobytes(), sizes.tobytes(), labels.tobytes(), *class_names),
        notes=tuple(str(note) for note in index["notes"]),
        labels=lambda: labels,
        ignored=int(index["ignored"]),
    )


def from_files(directory: Path) -> Examples:
    """Images without labels, in a directory and below it: in the order of their paths, label -1.

    Raises:
      DataError: no image there, or no permission.
    """
    listing = Listing(os.fsencode(directory.parent), {}, {})
    with readable():
        found = listing.images(os.fsencode(directory.name))
    if not found:
        raise DataError(
            f"{shown(directory)}: no images (looked for *{', *'.join(names.IMAGE_SUFFIXES)})"
        )
    paths = [listing.top + b"/" + path for path, _ in found]
    sizes = [f"{shown(path)}:{size}" for path, size in found]
    return Examples(
        count=len(paths),
        read=lambda row: (read_file(paths[row]), -1),
        name=lambda row: shown(paths[row]),
        fingerprint=digest("unlabelled", *sizes),
        notes=tuple(notes_on(directory, listing.left)),
        labels=lambda: np.full(len(paths), -1, np.int32),
        ignored=listing.ignored,
    )


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Context in which an OSError becomes a DataError that names the path."""
    try:
        yield
    except OSError as error:
        path = "" if error.filename is None else f"{shown(error.filename)}: "
        reason = error.strerror or str(error)
        raise DataError(
            f"{path}cannot be read ({reason}); make it readable, or move it elsewhere"
        ) from error


def read_file(path: bytes) -> bytes:
    """The content of a regular file.

    Raises:
      DataError: it cannot be read, or is a device or the like, which would have no end.
    """
    with readable(), open(path, "rb", buffering=0, opener=without_waiting) as file:
        kind = odd_kind(os.fstat(file.fileno()).st_mode)
        if kind:
            raise DataError(f"{shown(path)}: a {kind}, not a file; remove it")
        return file.read()


def index_state(changed: dict[str, int], class_names: Sequence[str]) -> str:
    """A digest that changes when the folders change, or the rules by which files are listed.

    Args:
      changed: modification time of each folder in nanoseconds; `.` is the folder that holds them.
      class_names: in the order of their labels.
    """
    return digest(json.dumps(changed), "nested", *names.IMAGE_SUFFIXES, *class_names)


def settled(stamps: Iterable[int]) -> bool:
    """Whether no folder changed in the last 2 s: its next change could show the same time.

    Args:
      stamps: modification time of each folder, in nanoseconds.
    """
    return max(stamps) < time.time_ns() - 2_000_000_000


def index_path(directory: Path, cache_dir: Path) -> Path:
    """Where the list of the files in a directory is kept."""
    return cache_dir / f"images-{digest(os.fsencode(directory.resolve()))}.npz"


def _index(
    directory: Path, class_names: Sequence[str], cache_dir: Path, used: Sequence[str]
) -> dict[str, np.ndarray]:
    """The list of the images in a directory's class folders, from the cache if it is current.

    Returns:
      [count] each: `paths` below `directory` (bytes), `sizes` int64 and `labels` int32. `notes`: on
      what is not used. `ignored`: the number of files and folders that are hidden or a system's.
    """
    label_of = {names.key(name): label for label, name in enumerate(class_names)}
    folders, top = class_folders(directory), os.fsencode(directory)
    names.one_each(folders, shown(directory))
    for folder in folders:
        if names.key(folder) not in label_of:
            _refuse(directory, folder, class_names)
    places = {".": directory} | {n: directory / os.fsdecode(raw) for n, raw in folders.items()}
    stamps = {name: place.stat().st_mtime_ns for name, place in places.items()}
    state = index_state(stamps, [*class_names, *used])
    cache = index_path(directory, cache_dir)
    defaults = {
        "ignored": np.array(0),
        "inside": np.array([], np.bytes_),
        "at": np.array([], np.int64),
    }
    saved = load_arrays(cache, "state", "paths", "sizes", "labels", "notes")
    if saved is not None and saved["state"] == state:
        saved = defaults | saved
        inside = zip(saved["inside"], saved["at"], strict=True)
        if all(changed(top + b"/" + bytes(raw)) == at for raw, at in inside):
            return saved

    listing = Listing(top, {}, {}, used=used)
    stray = listing.images(b"")
    if stray:
        raise DataError(
            f"{shown(directory)}/{shown(stray[0][0])}: an image beside the class folders; every "
            "image belongs in the folder of its class"
        )
    # Arrays at once, folder by folder: a million Python strings take several times the memory.
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    title = f"index of {shown(directory)}"
    for folder, raw in progress_bar(folders.items(), desc=title, unit=" folders", delay=1.0):
        folder_listing = Listing(top, {}, listing.inside)
        images = folder_listing.images(raw)
        if not images:
            _refuse_empty(directory, folder, folder_listing.left)
        listing.add(folder_listing)
        columns.append(
            (
                np.array([path for path, _ in images]),
                np.array([size for _, size in images], np.int64),
                np.full(len(images), label_of[names.key(folder)], np.int32),
            )
        )
    if not columns:
        raise DataError(f"{shown(directory)}: no images in its class folders")
    paths, sizes, labels = (np.concatenate(column) for column in zip(*columns, strict=True))
    notes = notes_on(directory, listing.left)
    nested = np.flatnonzero(np.strings.count(paths, b"/") > 1)
    if len(nested):
        notes.append(
            f"{shown(directory)}: {len(nested):,} images lie in folders inside class folders "
            f"({shown(paths[nested[0]])}) and are of these classes"
        )
    arrays = {
        "state": np.array(state),
        "paths": paths,
        "sizes": sizes,
        "labels": labels,
        "notes": np.array(notes, np.str_),
        "ignored": np.array(listing.ignored),
        "inside": np.array(list(listing.inside), np.bytes_),
        "at": np.array(list(listing.inside.values()), np.int64),
    }
    if settled([*stamps.values(), *listing.inside.values()]):
        save_arrays(cache, **arrays)
    return arrays


def changed(directory: bytes) -> int:
    """Modification time of a directory in nanoseconds; -1 if it does not exist."""
    try:
        return os.stat(directory).st_mtime_ns  # noqa: PTH116 (bytes)
    except OSError:
        return -1


def _refuse(directory: Path, folder: str, class_names: Sequence[str]) -> None:
    alike = [name for name in class_names if names.similar(name) == names.similar(folder)]
    hint = f"; is it {alike[0]!r}?" if alike else ""
    raise DataError(
        f"{shown(directory)}/{folder}: {folder!r} is not one of the {len(class_names)} classes "
        f"({names.listed(class_names)}){hint}"
    )


def _refuse_empty(directory: Path, folder: str, left: Left) -> None:
    raise DataError(
        f"{shown(directory)}/{folder}: no images (looked for *{', *'.join(names.IMAGE_SUFFIXES)})"
        + (f"; it holds {in_words(left)}" if left else "")
        + ". Fill or remove the folder"
    )
