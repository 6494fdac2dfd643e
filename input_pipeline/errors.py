"""The exceptions of this package."""

from pathlib import Path


class DataError(ValueError):
    """Data that is missing, damaged or not laid out as expected; the message says the way out."""

    def __init__(self, message: str):
        r"""Takes a message whose paths may hold bytes that are no UTF-8; they become \xe9."""
        super().__init__(
            message.encode("utf-8", "surrogateescape").decode(errors="backslashreplace")
        )


class UnreadableError(ValueError):
    """An image from which nothing can be made; the message is the reason."""


def check_utf8(path: Path) -> None:
    """Raises DataError where a path, of what TFDS reads and writes, is not UTF-8."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{path}: not a path in UTF-8, which TFDS needs; rename it, or make a symbolic link to "
            "it"
        ) from None
