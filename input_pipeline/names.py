"""Interprets names of folders and files in any case, spelling or encoding."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from input_pipeline.errors import DataError, escaped

IMAGE_SUFFIXES = (
    ".jpeg", ".jpg", ".jpe", ".jfif", ".jif", ".png", ".gif", ".bmp", ".webp", ".avif",
    ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo",
)  # fmt: skip

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}

# What file systems, desktops, network drives and archivers leave behind; in lower case.
_CLUTTER = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "@recycle",
    "#recycle", "#snapshot", "lost+found", "$recycle.bin", "recycler", "found.000",
    "system volume information", "network trash folder", "temporary items", "__pycache__",
}  # fmt: skip
_PARTS = ("train", "valid", "val", "test", "dev", "eval", "unlabel")
_ARCHIVES = (
    ".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar",
)  # fmt: skip
# A tag of AVIF lies behind the length of its box.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")


def shown(path: str | bytes | os.PathLike[str]) -> str:
    r"""A name or path as text that UTF-8 can encode.

    Names are bytes on disk. Bytes that are not valid UTF-8 become escapes such as \xe9, whatever
    the locale.
    """
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:  # text from a file, in a locale that cannot encode it
        raw = escaped(os.fspath(path))  # type: ignore[arg-type]
    return raw.decode("utf-8", "backslashreplace")


def paths_in(text: str) -> list[str]:
    """Splits a list of paths at its commas, unless the whole text is an existing path."""
    try:
        one = "," not in text or Path(text).exists()
    except OSError:  # longer than a path can be
        one = False
    return [path for path in ([text] if one else text.split(",")) if path]


def key(name: str) -> str:
    """A key that is equal for all Unicode spellings of a name, composed or decomposed."""
    return unicodedata.normalize("NFC", name)


def similar(name: str) -> str:
    """A key that is equal for names that differ only in case, letter width or spacing."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[-_\s]+", " ", folded).strip()


def split_of(name: str) -> str | None:
    """`train`, `validation` or `test`, for the name of a folder such as Train, valid, test_set."""
    return _SPLIT_OF.get(re.sub(r"[-_ ]?set$", "", name.strip().casefold()))


def sounds_like_a_split(name: str) -> bool:
    """Whether a name begins or ends as one of a split does, as test1 and images_val do."""
    low = name.casefold()
    return low.startswith(_PARTS) or low.endswith(_PARTS)


def is_clutter(name: str, *, folder: bool = False) -> bool:
    """Whether a name is hidden or a file system's own; for a file, also an archive or a backup."""
    low = name.casefold()
    own = low.startswith(".") or low in _CLUTTER
    return own or (not folder and low.endswith(("~", *_ARCHIVES)))


def suffix(name: str) -> str:
    """The suffix in lower case, with its dot; empty if there is none."""
    return PurePosixPath(name).suffix.lower()


def begins_as_image(head: bytes) -> bool:
    """Whether a file's first bytes are those of a supported image format."""
    netpbm = head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    return head.startswith(_BEGINNINGS) or netpbm or head[4:12] in (b"ftypavif", b"ftypavis")


def one_each(named: Iterable[str], where: str) -> None:
    """Checks that no two names denote the same class.

    Raises:
      DataError: two names differ only in their Unicode spelling.
    """
    seen: dict[str, str] = {}
    for name in named:
        other = seen.setdefault(key(name), name)
        if other != name:
            raise DataError(
                f"{where}: two folders are both named {key(name)!r} ({other!a} and "
                f"{name!a}, two Unicode spellings); put their images together in one"
            )


def class_order(named: Sequence[str], where: str) -> tuple[tuple[str, ...], list[str]]:
    """Class names in the order of their labels, and notes on that order.

    Names that are exactly the numbers 0 to n - 1, zero-padded or not, are in numerical order. All
    others are sorted as text in composed Unicode, so that copies on other systems sort alike.

    Args:
      named: names of class folders.
      where: their directory, for messages.

    Raises:
      DataError: two names are the same number, or the same text in two Unicode spellings.
    """
    one_each(named, where)
    ordered = tuple(sorted(named, key=key))
    notes = []
    if len(named) > 1 and all(name.isascii() and name.isdigit() for name in named):
        of_number: dict[int, str] = {}
        for name in ordered:
            other = of_number.setdefault(int(name), name)
            if other != name:
                raise DataError(
                    f"{where}: the folders {other} and {name} are one number; put their images "
                    "together in one"
                )
        if of_number.keys() == set(range(len(named))):
            ordered = tuple(of_number[number] for number in range(len(named)))
            notes.append(
                f"{where}: the class folders are the numbers 0 to {len(named) - 1}: labels are "
                "these numbers"
            )
        else:
            notes.append(
                f"{where}: the class folders are numbers, but not 0 to {len(named) - 1}: labels "
                f"follow their names as text ({', '.join(ordered[:3])}, ...)"
            )
    seen: dict[str, str] = {}
    for name in ordered:
        other = seen.setdefault(similar(name), name)
        if other != name:
            notes.append(
                f"{where}: {other!r} and {name!r} are two classes, alike but for case or spacing"
            )
    return ordered, notes


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first `most` items as text, and the number of those left out."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
