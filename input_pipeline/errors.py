"""The exceptions of this package."""


class DataError(ValueError):
    """Data that is missing, damaged or not laid out as expected; the message says the way out."""

    exit_code = 2

    def __init__(self, message: str):
        r"""Takes a message whose paths may hold bytes that are no UTF-8; they become \xe9."""
        super().__init__(escaped(message).decode(errors="backslashreplace"))


def escaped(text: str) -> bytes:
    r"""Text in UTF-8, with the bytes that it stands for; what stands for none is spelled \ud800."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


class UnreadableError(ValueError):
    """An image from which nothing can be made; the message is the reason."""


def first_line(error: Exception) -> str:
    """What an exception of a library says, in a line: its first, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
