"""Images outside any dataset, named one by one or by their directories."""

import contextlib
import os
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from input_pipeline import augment, decode, folders, names
from input_pipeline.errors import DataError, UnreadableError
from input_pipeline.names import shown


def find_photographs(paths: Sequence[str]) -> list[Path]:
    """Lists the image files that paths name.

    Args:
      paths: of files, which are taken as they are, and of directories, which are searched for
        images with their subdirectories; `~` is the home directory.

    Returns:
      Paths in the order of `paths`, sorted within each directory.

    Raises:
      DataError: a path does not exist or cannot be read, or a directory has no image.
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
      uint8 [square, square, 3], where square = side + 2 pad.

    Raises:
      DataError: the file cannot be read or decoded.
    """
    crops = augment.central_square(side, pad)
    square = np.zeros((crops.crop, crops.crop, 3), np.uint8)
    with _named(path) as content:
        augment.take(content, crops, augment.MIDDLE, square, exact=False)
    return square


def read_whole(path: Path, side: int) -> np.ndarray:
    """A whole photograph as evaluation reads it.

    Args:
      path: of the file.
      side: pixels of the shorter side.

    Returns:
      uint8 [height, width, 3].

    Raises:
      DataError: see `read_square`.
    """
    with _named(path) as content:
        size = decode.size(content)
        if size is None:
            size = decode.pixels(content).shape[:2]  # raises with the reason
        whole = np.zeros((*augment.rescaled(*size, side), 3), np.uint8)
        augment.take_whole(content, side, whole, exact=False)
    return whole


@contextlib.contextmanager
def _named(path: Path) -> Generator[bytes, None, None]:
    """Reads a file; turns an UnreadableError inside the block into a DataError with its name."""
    try:
        yield folders.read_file(os.fsencode(path))
    except UnreadableError as error:
        raise DataError(f"{shown(path)}: {error}") from error
