"""The index of images that lie in larger files or in one folder, and the order of the images."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline import folders, listing, names
from input_pipeline.errors import DataError
from input_pipeline.names import listed, shown
from input_pipeline.sources import Examples, digest, load_arrays, save_arrays

# Raise it when the content of the index changes, so that older files are not read.
_VERSION = "2"
_COLUMNS = ("names", "labels", "sizes", "container", "place")


class Members(NamedTuple):
    """The images of a split, sorted by (class, name), or in stored order if they have no names.

    Attributes:
      names: bytes [count], the challenge's file names; empty strings where none are stored.
      labels: int32 [count], indices into `classes`, or the stored numbers; -1 where the labels
        come from elsewhere.
      sizes: int64 [count], in bytes; -1 where only reading the images would tell.
      container: int32 [count], index of the file of the split that holds the image.
      place: int64 [count], position in that file: a byte offset or a row, as the layout reads it.
      classes: class names; empty where labels are plain numbers.
      notes: sentences on files that are not used.
      ignored: number of hidden files and of files of systems and archivers among the images.
    """

    names: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    container: np.ndarray
    place: np.ndarray
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ignored: int = 0


class Aside:
    """Counts the members of tars that are not images, by the same rules as in folders.

    Attributes:
      left: members that are not used; see `listing.Left`.
      ignored: number of members that are hidden or belong to an operating system.
    """

    def __init__(self) -> None:
        self.left: listing.Left = {}
        self.ignored = 0

    def is_clutter(self, path: str, *, folder: bool = False) -> bool:
        """Whether a member, or a folder that it is in, is clutter; counts it in `ignored` if so.

        Args:
          path: of the member.
          folder: the member is judged as a folder, so that archives are not clutter.
        """
        *above, name = [part for part in path.split("/") if part.strip(".")] or [""]
        clutter = any(names.is_clutter(part, folder=True) for part in above)
        clutter = clutter or names.is_clutter(name, folder=folder)
        self.ignored += clutter
        return clutter

    def is_image(self, path: str) -> bool:
        """Whether a member's suffix is that of an image; counts it in `left` if not."""
        name = path.rpartition("/")[2]
        named = listing.named_as_image(name)
        if self.is_clutter(path):
            if named and not name.startswith("._"):
                self.leave("hidden", path)
            return False
        if not named:
            suffix = names.suffix(name)
            self.leave(f"*{suffix}" if suffix else "without a suffix", path)
        return named

    def leave(self, kind: str, path: str) -> None:
        """Counts a member that is not used, under its kind."""
        so_far, first = self.left.get(kind, (0, path))
        self.left[kind] = (so_far + 1, first)

    def said(self, found: Members, where: Path) -> Members:
        """Adds notes on the members left out, and their number, to the images found in `where`."""
        notes = (*found.notes, *listing.notes_on(where, self.left))
        return found._replace(notes=notes, ignored=self.ignored)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A split as a layout stores it, before its images are listed.

    Attributes:
      layout: its description, for messages.
      files: the files that hold the images.
      list_members: lists all images of these files.
      read: (file, place, size, name) -> the bytes of an image.
      labelled: whether labels are stored with the images.
      cost: a sentence on the cost of random reads; empty where they cost no more than files do.
      form: pattern of the file names of a split, for messages; `{split}` and `{short}` (`val`)
        stand for the split.
      stray: it is a tar whose name names no split, and which may not be a shard at all.
    """

    layout: str
    files: tuple[Path, ...]
    list_members: Callable[[], Members]
    read: Callable[[Path, int, int, bytes], bytes]
    labelled: bool = True
    cost: str = ""
    form: str = ""
    stray: bool = False

    def members(self, cache_dir: Path) -> Members:
        """The images, from the index in `cache_dir` if the files have not changed since."""
        about = {shown(path.resolve()): path.stat() for path in self.files}
        times = (f"{path}:{a.st_size}:{a.st_mtime_ns}" for path, a in about.items())
        state = digest(_VERSION, self.layout, *times)
        # The name does not depend on the files' state, so that a new index replaces the old one.
        cache = cache_dir / f"members-{digest(self.layout, *about)}.npz"
        saved = load_arrays(cache, "state", *Members._fields)
        if saved is not None and saved["state"] == state:
            texts = {k: tuple(str(text) for text in saved[k]) for k in ("classes", "notes")}
            columns = [saved[name] for name in _COLUMNS]
            return _members(columns, **texts)._replace(ignored=int(saved["ignored"]))
        found = self.list_members()
        changed = [path.stat().st_mtime_ns for path in self.files if path.is_dir()]
        if not changed or folders.settled(changed):
            kept = {name: np.array(value) for name, value in found._asdict().items()}
            kept |= {name: kept[name].astype(np.str_) for name in ("classes", "notes")}
            save_arrays(cache, state=np.array(state), **kept)
        return found


def members(
    rows: Iterable[tuple[Sequence[bytes], Sequence[int], Sequence[int], int, Sequence[int]]],
    classes: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Members:
    """Builds sorted `Members` from the images found file by file.

    Args:
      rows: for each file, or part of one: names, labels, sizes, index of the file, places. Each is
        turned into arrays at once: a million Python strings would take several times the memory.
      classes, notes: see `Members`.
    """
    found = [
        (
            np.array(named, np.bytes_),
            np.array(labels, np.int32),
            np.array(sizes, np.int64),
            np.full(len(named), file, np.int32),
            np.array(places, np.int64),
        )
        for named, labels, sizes, file, places in rows
        if len(named)
    ]
    if not found:
        nothing = [np.empty(0, kind) for kind in ("S1", "i4", "i8", "i4", "i8")]
        return _members(nothing, classes, notes)
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    if np.strings.str_len(columns[0]).all():
        order = np.lexsort((columns[0], columns[1]))
        columns = [column[order] for column in columns]
    else:
        columns[0] = np.zeros(len(columns[0]), "S1")
    return _members(columns, classes, notes)


def _members(
    columns: Sequence[np.ndarray], classes: Sequence[str], notes: Sequence[str]
) -> Members:
    named, labels, sizes, container, place = columns
    return Members(named, labels, sizes, container, place, tuple(classes), tuple(notes))


def examples(
    stored: Stored, found: Members, labels: np.ndarray, class_names: Sequence[str]
) -> Examples:
    """The images with their labels, ordered as in a folder tree: by (class, file name).

    Where names and sizes are known, the fingerprint equals that of the folder tree with the same
    files, so that runs and mean images can be used with either.

    Args:
      stored, found: the split and its images.
      labels: int32 [count], the label of each image.
      class_names: name of each label.
    """
    if not len(labels):
        raise DataError(f"{shown(stored.files[0])}: no images in it (read as {stored.layout})")
    raw = [os.fsencode(name) for name in class_names]
    named = bool(found.names[0])
    if named:
        # As class folders are sorted.
        rank = np.argsort(np.argsort(np.array(raw), kind="stable")).astype(np.int32)[labels]
        if (np.diff(rank) < 0).any():
            order = np.argsort(rank, kind="stable")
            found = found._replace(**{k: getattr(found, k)[order] for k in _COLUMNS})
            labels = labels[order]
    named_as, sizes, container, place = found.names, found.sizes, found.container, found.place
    paths = np.strings.add(np.strings.add(np.array(raw), b"/")[labels], named_as)
    paths = paths.astype(f"S{np.strings.str_len(paths).max()}", copy=False)
    if named and (sizes >= 0).all():
        fingerprint = digest(paths.tobytes(), sizes.tobytes(), labels.tobytes(), *class_names)
    else:
        fingerprint = digest(
            *(f"{path.name}:{path.stat().st_size}" for path in stored.files),
            *(column.tobytes() for column in (paths, container, place, labels)),
            *class_names,
        )

    def read(row: int) -> tuple[bytes, int]:
        where = stored.files[container[row]]
        content = stored.read(where, int(place[row]), int(sizes[row]), bytes(named_as[row]))
        return content, int(labels[row])

    def name(row: int) -> str:
        where = shown(stored.files[container[row]])
        return f"{where}/{shown(bytes(paths[row]))}" if named else f"{where} image {place[row]}"

    there = [class_names[label] for label in np.unique(labels)]
    notes = [*found.notes, *missing_classes(stored.files[0], class_names, there)]
    if stored.cost:
        notes.append(f"{shown(stored.files[0].parent)}: {stored.cost}")
    disk_order = np.lexsort((place, container)) if stored.cost else None
    return Examples(
        len(labels),
        read,
        name,
        fingerprint,
        tuple(notes),
        disk_order,
        labels=lambda: labels,
        ignored=found.ignored,
    )


def unlabelled(stored: Stored, found: Members) -> Examples:
    """The images without labels (-1), by file name, or in stored order if they have no names."""
    of_one_class = examples(stored, found, np.zeros(len(found.labels), np.int32), ["test"])
    return dataclasses.replace(
        of_one_class,
        read=lambda row: (of_one_class.read(row)[0], -1),
        fingerprint=digest("unlabelled", of_one_class.fingerprint),
        labels=lambda: np.full(of_one_class.count, -1, np.int32),
    )


def missing_classes(where: Path, class_names: Sequence[str], there: Iterable[str]) -> list[str]:
    """A list of one sentence on the classes that are missing; empty if none are."""
    known = set(there)
    missing = [name for name in class_names if name not in known]
    if not missing:
        return []
    of_all = f"{len(missing)} of the {len(class_names)} classes"
    return [f"{shown(where)}: no images of {of_all} ({listed(missing, 3)})"]


def read_at(path: Path, place: int, size: int, name: bytes = b"") -> bytes:
    """Reads `size` bytes of a file from byte `place` on.

    The file is closed at once: shards are many and are read in random order.

    Args:
      path: of the file.
      place, size: offset and length in bytes.
      name: of the image, for messages.

    Raises:
      DataError: the file cannot be read, or has become shorter.
    """
    with folders.readable(), open(path, "rb", buffering=0) as file:
        content = os.pread(file.fileno(), size, place)
    if len(content) < size:
        raise DataError(
            f"{shown(path)}: cut short at byte {place + len(content)}, in {shown(name)}; "
            "get it again"
        )
    return content


def mixed(root: Path, split: str, first: str, second: str) -> DataError:
    """The error where a split is there in two layouts."""
    return DataError(
        f"{shown(root)}: the {split} split is there twice, as {first} and as {second}; leave one "
        "of them there"
    )
