"""The exceptions of this package."""


class DataError(ValueError):
    """Data that is missing, damaged or not laid out as expected; the message says the way out."""


class UnreadableError(ValueError):
    """An image from which nothing can be made; the message is the reason."""
