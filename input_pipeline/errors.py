"""The one exception of this package."""


class DataError(ValueError):
    """Data that is missing, damaged or not laid out as expected; the message says the way out."""
