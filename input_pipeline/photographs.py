"""Single images: finds those that paths name, and decodes each as evaluation does."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

import files
from input_pipeline import augment, decode, folders, listing, names
from input_pipeline.errors import DataError, UnreadableError
from input_pipeline.names import shown


class Images(Protocol):
    """The form in which images are asked for: central squares padded with zeros, or whole."""

    @property
    def side(self) -> int:
        """Pixels of the rescaled image's shorter side, which is the side of the square."""

    @property
    def whole(self) -> bool:
        """Whether the whole rescaled image is asked for, without padding."""

    @property
    def pad(self) -> int:
        """Width in pixels of the zeros on each side of the square."""


def find_photographs(named: str) -> list[Path]:
    """Lists the image files that paths name.

    Args:
      named: paths with commas between them, unless the whole is one path: of files, which are
        taken as they are, and of directories, which are searched for images with their
        subdirectories; `~` is the home directory.

    Returns:
      Paths in the order of `named`, sorted within each directory, each once.

    Raises:
      DataError: a path does not exist or cannot be read, or a directory has no image.
    """
    found: list[Path] = []
    with contextlib.suppress(ValueError):  # said of the part that is at fault
        named = files.expanded(named)
    for text in names.paths_in(named):
        try:
            path = Path(files.expanded(text))
        except ValueError as error:
            raise DataError(f"--images={shown(text)}: {error}") from error
        try:
            if path.is_dir():
                inside, notes = listing.images_below(path)
                if not inside:
                    raise DataError(f"--images={shown(text)}: no images in this directory")
                for note in notes:
                    print(f"note: {note}", file=sys.stderr)
                found += inside
            elif path.exists():
                found.append(path)
            else:
                raise DataError(f"--images={shown(text)}: no such file or directory")
        except OSError as error:
            raise DataError(f"--images={shown(text)}: cannot be read ({error.strerror})") from error
    return list(dict.fromkeys(found))


def read_photograph(path: Path) -> bytes:
    """The bytes of a photograph's file.

    Raises:
      DataError: it cannot be read.
    """
    try:
        return folders.read_file(os.fsencode(path))
    except UnreadableError as error:
        raise DataError(f"{shown(path)}: {error}") from error


def pixels_of(content: bytes | np.ndarray, images: Images, name: str) -> np.ndarray:
    """An image as evaluation reads it; see `decoded`.

    Args:
      content, images: as in `decoded`.
      name: of the image, for messages.

    Raises:
      DataError: the content cannot be decoded.
    """
    try:
        return decoded(content, images)
    except UnreadableError as error:
        raise DataError(f"{name}: {error}") from error


def decoded(content: bytes | np.ndarray, images: Images, *, exact: bool = False) -> np.ndarray:
    """An image as evaluation reads it.

    Args:
      content: a file's bytes, or uint8 [height, width, 3].
      images: the central square, with zeros around it, or all of the image.
      exact: as in `decode.window`.

    Returns:
      uint8 [height, width, 3], rescaled.

    Raises:
      UnreadableError: the content cannot be decoded.
    """
    if not images.whole:
        crops = augment.central_square(images.side, images.pad)
        square = np.zeros((crops.crop, crops.crop, 3), np.uint8)
        augment.take(content, crops, augment.MIDDLE, square, exact=exact)
        return square
    size = decode.size(content)
    if size is None:
        assert isinstance(content, bytes), "an array has a size"
        size = decode.pixels(content).shape[:2]  # raises the error that says why
    whole = np.zeros((*augment.rescaled(*size, images.side), 3), np.uint8)
    augment.take_whole(content, images.side, whole, exact=exact)
    return whole


def readable(paths: Sequence[Path], forms: Sequence[Images]) -> dict[Path, list[np.ndarray]]:
    """Reads photographs in several forms each; prints and leaves out unreadable ones."""
    pixels = {}
    for path in paths:
        try:
            content = read_photograph(path)
            pixels[path] = [pixels_of(content, images, shown(path)) for images in forms]
        except DataError as error:
            print(f"left out: {error}", file=sys.stderr)
    return pixels
