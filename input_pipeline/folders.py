"""Images in class folders: which files are read, and what is said of the others."""

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from input_pipeline import names
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.report import progress_bar
from input_pipeline.sources import Examples, digest, load_arrays, save_arrays

# Files that are counted before it is enough to say that there are many.
_MANY = 10_000
_KINDS = (
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)

# What is not used, by kind: how many, and the first of them.
_Left = dict[str, tuple[int, str]]


def class_folders(directory: Path) -> dict[str, bytes]:
    """Folders in `directory`, sorted: what they are called -> their name on the disk.

    Hidden ones and those of file systems and archivers do not count.

    Raises:
      OSError: it cannot be listed.
    """
    with os.scandir(os.fsencode(directory)) as entries:
        found = sorted(e.name for e in entries if e.is_dir())
    return {shown(name): name for name in found if not names.is_clutter(shown(name), folder=True)}


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
    """What lies in a directory and is not used: a sentence, or none.

    Args:
      directory: of splits, or of class folders.
      used: names in it that are.
    """
    with os.scandir(os.fsencode(directory)) as entries:
        found = sorted((shown(e.name), e.path if e.is_dir() else None) for e in entries)
    left = [
        f"{name}/ ({count_files(folder)})" if folder else name
        for name, folder in found
        if name not in used and not names.is_clutter(name)
    ]
    return [f"{shown(directory)}: not used: {names.listed(left)}"] if left else []


def from_folders(directory: Path, class_names: Sequence[str], cache_dir: Path) -> Examples:
    """Images in class folders, `directory/<class name>/*`.

    Files are read in sorted order. Read are regular files with an image's suffix, and those
    without any suffix that begin as images do; what else there is is counted, by suffix, in
    `notes`. The list of files is kept in `cache_dir` and made again when files were added to a
    folder, removed or renamed. (A file that was written anew in its place is read anew, but
    the fingerprint has its old size until then.)

    Args:
      directory: where the class folders are.
      class_names: the label of a folder is the place of its name in this list, in whichever
        Unicode spelling.
      cache_dir: where the list is kept.

    Raises:
      DataError: a folder of another name, a class folder without images (those in folders
        inside it do not count), images beside the class folders, or no permission.
    """
    with readable():
        paths, sizes, labels, notes = _index(directory, class_names, cache_dir)
    prefix = os.fsencode(directory) + b"/"

    def read(row: int) -> tuple[bytes, int]:
        return read_file(prefix + bytes(paths[row])), int(labels[row])

    return Examples(
        count=len(paths),
        read=read,
        name=lambda row: shown(prefix + bytes(paths[row])),
        fingerprint=digest(paths.tobytes(), sizes.tobytes(), labels.tobytes(), *class_names),
        notes=tuple(notes),
    )


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Turns what the system says of a path into a DataError that names it."""
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
    with readable(), open(path, "rb", buffering=0, opener=_without_waiting) as file:
        kind = _odd_kind(os.fstat(file.fileno()).st_mode)
        if kind:
            raise DataError(f"{shown(path)}: a {kind}, not a file; remove it")
        return file.read()


def _without_waiting(path: str | bytes, flags: int) -> int:
    """Opens a FIFO at once, though nobody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _odd_kind(mode: int) -> str | None:
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)


def index_state(changed: dict[str, int], class_names: Sequence[str]) -> str:
    """Of which state of the folders, and of this code, a list of files is.

    Args:
      changed: when each folder was, in nanoseconds; `.` is the one that holds them.
      class_names: in the order of their labels.
    """
    return digest(json.dumps(changed), *names.IMAGE_SUFFIXES, *class_names)


def settled(changed: Iterable[int]) -> bool:
    """Whether folders may be listed once for all: changes in the instant of listing are missed.

    Args:
      changed: when each was, in nanoseconds.
    """
    return max(changed) < time.time_ns() - 2_000_000_000


def index_path(directory: Path, cache_dir: Path) -> Path:
    """Where the list of the files in a directory is kept."""
    return cache_dir / f"images-{digest(os.fsencode(directory.resolve()))}.npz"


def _index(
    directory: Path, class_names: Sequence[str], cache_dir: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Path below `directory` (bytes), size int64 and label int32 of every image, [count] each.

    And sentences about what is not used.
    """
    label_of = {names.key(name): label for label, name in enumerate(class_names)}
    folders, top = class_folders(directory), os.fsencode(directory)
    names.one_each(folders, shown(directory))
    for folder in folders:
        if names.key(folder) not in label_of:
            _refuse(directory, folder, class_names)
    places = {".": directory} | {n: directory / os.fsdecode(raw) for n, raw in folders.items()}
    changed = {name: place.stat().st_mtime_ns for name, place in places.items()}
    state = index_state(changed, class_names)
    cache = index_path(directory, cache_dir)
    saved = load_arrays(cache, "state", "paths", "sizes", "labels", "notes")
    if saved is not None and saved["state"] == state:
        notes = [str(note) for note in saved["notes"]]
        return saved["paths"], saved["sizes"], saved["labels"], notes

    stray = [name for name, _ in _list(top, b"", {})]
    if stray:
        raise DataError(
            f"{shown(directory)}/{shown(stray[0])}: an image beside the class folders; every image "
            "belongs in the folder of its class"
        )
    # Arrays at once, folder by folder: a million Python strings would take several times
    # the memory.
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    left: _Left = {}
    title = f"index of {shown(directory)}"
    for folder, raw in progress_bar(folders.items(), desc=title, unit=" folders", delay=1.0):
        here: _Left = {}
        images = _list(top, raw, here)
        if not images:
            _refuse_empty(directory, folder, here)
        for kind, (count, first) in here.items():
            so_far, earliest = left.get(kind, (0, first))
            left[kind] = (so_far + count, earliest)
        found.append(
            (
                np.array([raw + b"/" + name for name, _ in images]),
                np.array([size for _, size in images], np.int64),
                np.full(len(images), label_of[names.key(folder)], np.int32),
            )
        )
    if not found:
        raise DataError(f"{shown(directory)}: no images in its class folders")
    paths, sizes, labels = (np.concatenate(column) for column in zip(*found, strict=True))
    notes = [f"{shown(directory)}: not used: {_said(left)}"] if left else []
    if settled(changed.values()):
        arrays = {"paths": paths, "sizes": sizes, "labels": labels, "state": np.array(state)}
        save_arrays(cache, **arrays, notes=np.array(notes, np.str_))
    return paths, sizes, labels, notes


def _refuse(directory: Path, folder: str, class_names: Sequence[str]) -> None:
    alike = [name for name in class_names if names.similar(name) == names.similar(folder)]
    hint = f"; is it {alike[0]!r}?" if alike else ""
    raise DataError(
        f"{shown(directory)}/{folder}: {folder!r} is not one of the {len(class_names)} classes "
        f"({names.listed(class_names)}){hint}"
    )


def _refuse_empty(directory: Path, folder: str, left: _Left) -> None:
    deeper = left.pop(_DEEPER, None)
    raise DataError(
        f"{shown(directory)}/{folder}: no images (looked for *{', *'.join(names.IMAGE_SUFFIXES)})"
        + (f"; those in {deeper[1]} lie one level too deep" if deeper else "")
        + (f"; it holds {_said(left)}" if left else "")
        + ". Fill or remove the folder"
    )


_DEEPER = "images in folders inside class folders"


def _list(top: bytes, folder: bytes, left: _Left) -> list[tuple[bytes, int]]:
    """Names and sizes of the images in a folder, sorted by name.

    Args:
      top: the directory that holds it.
      folder: its name; empty for `top` itself.
      left: what is not used is counted here.
    """

    def leave(kind: str, name: bytes, count: int = 1) -> None:
        so_far, first = left.get(kind, (0, shown(folder + b"/" + name)))
        left[kind] = (so_far + count, first)

    found = []
    with os.scandir(top + b"/" + folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = shown(entry.name)
            is_image = named_as_image(name)
            if entry.is_dir():
                if folder and not names.is_clutter(name, folder=True):
                    count = _count_images(entry.path)
                    if count or is_image:
                        leave(_DEEPER, entry.name, count)
            elif names.is_clutter(name):
                if is_image and not name.startswith("._"):
                    leave("hidden", entry.name)
            elif is_image or not names.suffix(name):
                if not is_image and not _begins_as_image(entry):
                    leave("without a suffix", entry.name)
                    continue
                about = entry.stat()  # raises for a link to nowhere
                kind = _odd_kind(about.st_mode)
                if kind:
                    leave(kind, entry.name)
                else:
                    found.append((entry.name, about.st_size))
            else:
                leave(f"*{names.suffix(name)}", entry.name)
    return found


def named_as_image(name: str) -> bool:
    """Whether a file's name ends as those of images do."""
    return name.lower().endswith(names.IMAGE_SUFFIXES)


def _begins_as_image(entry: "os.DirEntry[bytes]") -> bool:
    if not entry.is_file():
        return False
    try:
        with open(entry.path, "rb", buffering=0, opener=_without_waiting) as file:
            return names.begins_as_image(file.read(12) or b"")
    except OSError:  # counted with those that are none
        return False


def _count_images(directory: bytes) -> int:
    walk = os.walk(directory)
    return sum(named_as_image(shown(name)) for _, _, files in walk for name in files)


def _said(left: _Left) -> str:
    """Such as: 12 *.heic (cat/1.heic), 3 *.txt (cat/a.txt)."""
    ordered = sorted(left.items(), key=lambda item: -item[1][0])
    return names.listed([f"{count:,} {kind} ({first})" for kind, (count, first) in ordered])
