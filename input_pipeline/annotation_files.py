"""Reads annotation files: PASCAL VOC XML in directories and tars, and COCO JSON."""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from input_pipeline import coco, folders, names
from input_pipeline.errors import DataError, first_line
from input_pipeline.names import shown

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TARS = (".tar", ".tar.gz", ".tgz")


def annotated(place: Path) -> Iterator[tuple[bytes, coco.Parsed | Exception]]:
    """Yields the path of every annotation and what it says, or what is wrong with it."""
    if place.suffix.lower() == ".json":
        yield from coco.annotated(place)
        return
    for path, content in _files(place):
        try:
            yield path, _parsed(content)
        except (ElementTree.ParseError, ValueError, LookupError, OverflowError) as error:
            yield path, error


def _parsed(content: bytes) -> coco.Parsed:
    """Width and height in pixels; and of each object its name and [xmin, ymin, xmax, ymax].

    Raises:
      ParseError, LookupError: the content is not XML, or its encoding is unknown.
      ValueError, OverflowError: the size or a corner is missing or invalid.
    """
    root = ElementTree.fromstring(content)
    width, height = (
        int(_number(root.findtext(f"size/{name}") or "0", name)) for name in ("width", "height")
    )
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise ValueError("it does not say the size of the image")
    objects = []
    for element in root.iter("object"):
        corners = [_number(element.findtext(f"bndbox/{name}"), name) for name in _CORNERS]
        objects.append(((element.findtext("name") or "").strip(), corners))
    return width, height, objects


def _number(text: str | None, name: str) -> float:
    """The number in an element of an annotation; ValueError with its name if there is none."""
    try:
        value = float(text or "nan")
    except ValueError as error:
        raise ValueError(f"{name} is {(text or '').strip()[:40]!r}, no number") from error
    if not np.isfinite(value):
        raise ValueError(f"{name} is missing, or is no number")
    return value


def _files(place: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yields the path and content of every XML file in a directory, below it, or in a tar."""
    if not place.is_dir():
        with open(place, "rb") as file:
            yield from _members(place, file)
        return
    top = os.fsencode(place)
    for directory, subfolders, files in os.walk(top):
        subfolders[:] = sorted(
            raw for raw in subfolders if not names.is_clutter(shown(raw), folder=True)
        )
        for raw in sorted(files):
            if raw.lower().endswith(b".xml") and not names.is_clutter(shown(raw)):
                path = directory + b"/" + raw
                yield path[len(top) + 1 :], folders.read_file(path)


def _members(place: Path, file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yields the path and content of every XML file in a tar and in the tars inside it.

    Args:
      place: the outermost tar, for messages.
      file: the tar, compressed with gzip or not.

    Raises:
      DataError: the tar is damaged or cut short.
    """
    try:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        content: Any = gzip.GzipFile(fileobj=file) if compressed else file
        with tarfile.open(fileobj=content, mode="r|") as tar:
            for member in tar:
                lowered = member.name.lower()
                parts = [part for part in member.name.split("/") if part.strip(".")]
                if any(names.is_clutter(part, folder=True) for part in parts):
                    continue
                extracted = tar.extractfile(member) if member.isfile() else None
                if extracted is None:
                    continue
                if lowered.endswith(_TARS):
                    yield from _members(place, io.BytesIO(extracted.read()))
                elif lowered.endswith(".xml"):
                    yield os.fsencode(member.name), extracted.read()
        # tarfile reports no error for a tar that is cut off between two members.
        while compressed and content.read(1 << 20):
            pass
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - tarfile.BLOCKSIZE, 0))
        if not compressed and any(file.read()):
            raise EOFError("no end of the archive")
    except (tarfile.TarError, EOFError, ValueError, zlib.error, OSError) as error:
        raise DataError(
            f"{shown(place)}: damaged or cut short ({first_line(error)}); download it again, or "
            "move it elsewhere to do without boxes"
        ) from error
