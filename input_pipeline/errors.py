"""The one exception of this package."""

from pathlib import Path


class DataError(ValueError):
    """Data that is missing, damaged or not laid out as expected; the message says the way out."""


def check_utf8(path: Path) -> None:
    """Raises DataError where a path, of what TFDS reads and writes, is not UTF-8."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{path}: not a path in UTF-8, which TFDS needs; rename it, or make a symbolic link to "
            "it"
        ) from None
