"""What is in a folder of images: those that are read, and how the other files are reported."""

import dataclasses
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from input_pipeline import names
from input_pipeline.errors import DataError
from input_pipeline.names import shown

_KINDS = (
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)

# Files that are not used, by kind: their number, and the path of the first.
Left = dict[str, tuple[int, str]]


def images_in(directory: Path) -> tuple[list[tuple[bytes, int]], list[str]]:
    """Names and sizes of the images directly in a directory, and a sentence on unused files.

    Images and ignored files are recognised as in class folders, see `folders.from_folders`.

    Raises:
      OSError: it cannot be listed.
    """
    listing = Listing(os.fsencode(directory), {}, {})
    found = listing.images(b"")
    return found, notes_on(directory, listing.left)


def images_below(directory: Path) -> tuple[list[Path], list[str]]:
    """The images in a directory and below it, sorted, and a sentence on unused files.

    Images and ignored files are recognised as in class folders, see `folders.from_folders`.

    Raises:
      DataError: a link leads nowhere.
      OSError: a folder cannot be listed.
    """
    listing = Listing(os.fsencode(directory), {}, {})
    found = sorted(directory / os.fsdecode(path) for path, _ in listing.images(b"."))
    return found, notes_on(directory, listing.left)


@dataclasses.dataclass
class Listing:
    """Lists images, and counts what is not used.

    Attributes:
      top: the directory that holds the class folders.
      left: files that are not used.
      inside: modification time, in nanoseconds, of each folder in a class folder, by path in `top`.
      ignored: number of files and folders that are hidden or a system's own.
      used: names of files directly in `top` that are neither images nor left.
    """

    top: bytes
    left: Left
    inside: dict[bytes, int]
    ignored: int = 0
    used: Sequence[str] = ()

    def add(self, other: "Listing") -> None:
        """Adds the counts of another listing."""
        for kind, (count, first) in other.left.items():
            so_far, earliest = self.left.get(kind, (0, first))
            self.left[kind] = (so_far + count, earliest)
        self.ignored += other.ignored

    def images(self, folder: bytes) -> list[tuple[bytes, int]]:
        """Paths below `top` and sizes of the images in a folder and below it, sorted by path.

        Args:
          folder: a class folder's name; empty for `top` alone, without the folders in it.
        """
        status = os.stat(self.top + b"/" + folder)  # noqa: PTH116 (bytes)
        found = self._images(folder, ((status.st_dev, status.st_ino),))
        return sorted(found) if folder else found

    def _images(self, folder: bytes, above: tuple[tuple[int, int], ...]) -> list[tuple[bytes, int]]:
        """As `images`; `above` are (device, inode) of the folder and of those that hold it."""
        found = []
        with os.scandir(self.top + b"/" + folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = shown(entry.name)
                path = folder + b"/" + entry.name if folder else entry.name
                is_image = named_as_image(name)
                if entry.is_dir():
                    if names.is_clutter(name, folder=True):
                        self.ignored += 1
                    elif folder:
                        status = entry.stat()
                        identity = (status.st_dev, status.st_ino)
                        if identity in above:
                            self._leave("link to a folder that holds it", path)
                            continue
                        self.inside[path] = status.st_mtime_ns
                        found += self._images(path, (*above, identity))
                elif names.is_clutter(name):
                    self.ignored += 1
                    if is_image and not name.startswith("._"):
                        self._leave("hidden", path)
                elif is_image or not names.suffix(name):
                    if not is_image and not _begins_as_image(entry):
                        self._leave("without a suffix", path)
                        continue
                    status = _status(entry)
                    kind = odd_kind(status.st_mode)
                    if kind:
                        self._leave(kind, path)
                    else:
                        found.append((path, status.st_size))
                elif folder or name not in self.used:
                    self._leave(f"*{names.suffix(name)}", path)
        return found

    def _leave(self, kind: str, path: bytes) -> None:
        so_far, first = self.left.get(kind, (0, shown(path)))
        self.left[kind] = (so_far + 1, first)


def _status(entry: "os.DirEntry[bytes]") -> os.stat_result:
    try:
        return entry.stat()
    except FileNotFoundError as error:
        if not entry.is_symlink():
            raise
        raise DataError(
            f"{shown(entry.path)}: a link to nowhere; remove it, or put back what it is to"
        ) from error


def named_as_image(name: str) -> bool:
    """Whether a file's name has an image's suffix."""
    return name.lower().endswith(names.IMAGE_SUFFIXES)


def _begins_as_image(entry: "os.DirEntry[bytes]") -> bool:
    if not entry.is_file():
        return False
    try:
        with open(entry.path, "rb", buffering=0, opener=without_waiting) as file:
            return names.begins_as_image(file.read(12) or b"")
    except OSError:  # counted with the files that are no images
        return False


def notes_on(where: Path, left: Left) -> list[str]:
    """A list of one sentence on the files of a place that are not used; empty if all are."""
    return [f"{shown(where)}: not used: {in_words(left)}"] if left else []


def in_words(left: Left) -> str:
    """Unused files, the most frequent kind first: 12 *.heic (cat/1.heic), 3 *.txt (cat/a.txt)."""
    ordered = sorted(left.items(), key=lambda item: -item[1][0])
    return names.listed([f"{count:,} {kind} ({first})" for kind, (count, first) in ordered])


def without_waiting(path: str | bytes, flags: int) -> int:
    """Opens a file without blocking, even a FIFO that has no writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def odd_kind(mode: int) -> str | None:
    """What a file is by its mode, if it is neither a regular file nor a folder."""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)
