"""ILSVRC's second task: guesses with boxes, the official error, and submission files."""

from evaluation.localization.official import (
    GUESSED,
    NO_GUESSES,
    Guesses,
    Truth,
    excluded_images,
    is_right,
    localized,
    official_errors,
    overlaps,
)
from evaluation.localization.regression import in_pixels, of_image, region_overlaps
from evaluation.localization.submissions import Names, numbers_of_labels, read, stems, write

__all__ = [
    "GUESSED",
    "NO_GUESSES",
    "Guesses",
    "Names",
    "Truth",
    "excluded_images",
    "in_pixels",
    "is_right",
    "localized",
    "numbers_of_labels",
    "of_image",
    "official_errors",
    "overlaps",
    "read",
    "region_overlaps",
    "stems",
    "write",
]
