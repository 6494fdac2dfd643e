"""The exceptions of this package."""


class DataError(ValueError):
    """Data that is missing, damaged or not laid out as expected; the message says the way out."""

    exit_code = 2

    def __init__(self, message: str):
        r"""Takes a message whose paths may hold bytes that are no UTF-8; they become \xe9."""
        super().__init__(
            message.encode("utf-8", "surrogateescape").decode(errors="backslashreplace")
        )


class UnreadableError(ValueError):
    """An image from which nothing can be made; the message is the reason."""


def first_line(error: Exception) -> str:
    """What an exception of a library says, in a line: its first, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
