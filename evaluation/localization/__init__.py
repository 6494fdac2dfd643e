"""ILSVRC's second task: guesses with boxes, the official error, and submission files."""

from evaluation.localization.official import (
    GUESSED,
    Guesses,
    Truth,
    excluded_images,
    is_right,
    official_errors,
    overlaps,
)
from evaluation.localization.submissions import Names, numbers_of_labels, read, write

__all__ = [
    "GUESSED",
    "Guesses",
    "Names",
    "Truth",
    "excluded_images",
    "is_right",
    "numbers_of_labels",
    "official_errors",
    "overlaps",
    "read",
    "write",
]
