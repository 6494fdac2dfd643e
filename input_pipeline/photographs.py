"""Images that somebody names, one by one or as directories, outside any dataset."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from input_pipeline import augment, folders, names
from input_pipeline.errors import DataError, UnreadableError
from input_pipeline.names import shown


def find_photographs(paths: Sequence[str]) -> list[Path]:
    """The files that paths stand for: files as they are, and the images in directories and below.

    Args:
      paths: of files and directories; `~` is the home.

    Raises:
      DataError: there is nothing of that name, or no image in a directory.
    """
    found: list[Path] = []
    for text in paths:
        path = Path(os.path.expanduser(text))  # noqa: PTH111 (pathlib's fails without a home)
        try:
            if path.is_dir():
                inside = sorted(
                    Path(directory) / name
                    for directory, below, files in os.walk(path)
                    for name in files
                    if not names.is_clutter(shown(name)) and folders.named_as_image(shown(name))
                )
                if not inside:
                    raise DataError(f"--images={shown(text)}: no images in this directory")
                found += inside
            elif path.exists():
                found.append(path)
            else:
                raise DataError(f"--images={shown(text)}: no such file or directory")
        except OSError as error:
            raise DataError(f"--images={shown(text)}: cannot be read ({error.strerror})") from error
    return found


def read_square(path: Path, side: int, pad: int = 0) -> np.ndarray:
    """The central square of a photograph as evaluation reads it.

    Args:
      path: of the file.
      side: pixels of the shorter side.
      pad: zeros around the square, in pixels on each side.

    Returns:
      uint8 [square, square, 3] of side + 2 pad pixels.

    Raises:
      DataError: the file cannot be read, or nothing can be made of it.
    """
    return square_of(read_photograph(path), side, pad, name=shown(path))


def read_photograph(path: Path) -> bytes:
    """The bytes of a photograph's file.

    Raises:
      DataError: it cannot be read.
    """
    try:
        return folders.read_file(os.fsencode(path))
    except UnreadableError as error:
        raise DataError(f"{shown(path)}: {error}") from error


def square_of(
    content: bytes | np.ndarray, side: int, pad: int = 0, *, name: str = "the image"
) -> np.ndarray:
    """The central square of an image as evaluation reads it.

    Args:
      content: a file's bytes, or uint8 [height, width, 3].
      side, pad: as in `read_square`.
      name: what it is called in a message.

    Returns:
      uint8 [square, square, 3] of side + 2 pad pixels.

    Raises:
      DataError: nothing can be made of it.
    """
    crops = augment.central_square(side, pad)
    square = np.zeros((crops.crop, crops.crop, 3), np.uint8)
    try:
        augment.take(content, crops, np.full(augment.DRAWS, 0.5), square, exact=False)
    except UnreadableError as error:
        raise DataError(f"{name}: {error}") from error
    return square
