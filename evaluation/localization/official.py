"""The official error of ILSVRC's localization task (the development kit's eval_clsloc.m).

A box is xmin, ymin, xmax, ymax in pixels of the image, whose pixels at all four edges are inside.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.errors import EvaluationError

# Number of guesses that count; more are ignored.
GUESSED = 5
# A guess with this overlap or more is right.
_ENOUGH = 0.5
_NUMBERED = re.compile(r"ILSVRC\d{4}_val_(\d{8})(\.\w+)?", re.IGNORECASE)


class Guesses(NamedTuple):
    """What is guessed of an image, the best guess first.

    Attributes:
      labels: int [k]; -1 is no class of the dataset.
      boxes: float [k, 4].
    """

    labels: np.ndarray
    boxes: np.ndarray


class Truth(NamedTuple):
    """What is true of an image.

    Attributes:
      label: of the image; -1 if it is not known.
      boxes: float [n, 4], of all objects.
      labels: int [n], of the objects.
    """

    label: int
    boxes: np.ndarray
    labels: np.ndarray

    @property
    def of_class(self) -> np.ndarray:
        """The boxes that count, [m, 4]: of the objects of the image's class."""
        return self.boxes[(self.labels == self.label) & (self.label >= 0)]


NO_GUESSES = Guesses(np.zeros(0, np.int64), np.zeros((0, 4)))


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area of the intersection over that of the union of boxes (compute_overlap.m).

    Widths are xmax - xmin + 1, of the intersection as well.

    Args:
      boxes: [k, 4].
      others: [n, 4].

    Returns:
      float64 [k, n]; -1 where two boxes have no pixel in common.
    """
    a, b = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    sides = high - low + 1
    common = sides.prod(axis=-1)
    areas = [(of[..., 2:] - of[..., :2] + 1).prod(axis=-1) for of in (a, b)]
    meet = (sides > 0).all(axis=-1)
    return np.where(meet, common / np.where(meet, areas[0] + areas[1] - common, 1), -1.0)


def is_right(guesses: Guesses, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Which of an image's guesses have the right class, and which of these a right box.

    A box is right if it overlaps any object of the image's class by half or more. Objects of other
    classes are ignored.

    Returns:
      Two arrays, bool [k].
    """
    named = np.asarray(guesses.labels) == truth.label
    found = overlaps(guesses.boxes, truth.of_class)
    return named, named & (found.max(axis=1, initial=-1.0) >= _ENOUGH)


def official_errors(
    guesses: Sequence[Guesses], truths: Sequence[Truth], excluded: Sequence[int] = ()
) -> dict[str, Any]:
    """The errors of a split for 1 to 5 guesses.

    The classification error is over all images. The localization error leaves out `excluded`
    images, as the kits do from 2013 on, and images of which no object of their class has a box.

    Args:
      guesses, truths: of each image. Images with fewer than five guesses have no further ones.
      excluded: positions in `truths` of the images with poor boxes.

    Returns:
      `examples` and `localized_examples`, the numbers of images; `classification_errors` and
      `localization_errors`, lists of five fractions; and `top1_error`, `top5_error`,
      `top1_localization_error` and `top5_localization_error`, which are in these lists.

    Raises:
      EvaluationError: see `localized`.
    """
    counted = localized(truths, excluded)
    wrong = np.ones((2, len(truths), GUESSED))
    for row, (guess, truth) in enumerate(zip(guesses, truths, strict=True)):
        for number, right in enumerate(is_right(guess, truth)):
            first = right[:GUESSED].argmax() if right[:GUESSED].any() else GUESSED
            wrong[number, row, first:] = 0
    classification, localization = wrong[0].mean(axis=0), wrong[1][counted].mean(axis=0)
    return {
        "examples": len(truths),
        "localized_examples": int(counted.sum()),
        "top1_error": float(classification[0]),
        "top5_error": float(classification[-1]),
        "top1_localization_error": float(localization[0]),
        "top5_localization_error": float(localization[-1]),
        "classification_errors": classification.tolist(),
        "localization_errors": localization.tolist(),
    }


def localized(truths: Sequence[Truth], excluded: Sequence[int] = ()) -> np.ndarray:
    """Which images the localization error is over, bool [images].

    Args:
      truths, excluded: see `official_errors`.

    Raises:
      EvaluationError: no image has a box of its class, or all of them are excluded.
    """
    counted = np.array([len(truth.of_class) > 0 for truth in truths], bool)
    counted[list(excluded)] = False
    if not counted.any():
        raise EvaluationError(
            f"none of the {len(truths):,} images has a box of its class that counts; is this the "
            "split that has annotations?"
        )
    return counted


def excluded_images(path: Path, names: Sequence[str]) -> list[int]:
    """Positions of the images that the kit's list leaves out of the localization error.

    Args:
      path: of the list (ILSVRC2014_clsloc_validation_blacklist.txt), a number from 1 on in each
        line.
      names: of the images. ILSVRC2012_val_00000007.JPEG has the number 7. If any image is called
        otherwise, the numbers are those of all in the order of their names.

    Returns:
      Positions in `names`; of numbers that no image has, none.

    Raises:
      EvaluationError: the list cannot be read, or a line is no such number.
    """
    listed = set()
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        if not (line.strip().isdecimal() and int(line) > 0):
            raise EvaluationError(
                f"{path}, line {number}: {line.strip()[:40]!r} is not the number of an image, 1 or "
                "more"
            )
        listed.add(int(line))
    files = [name.replace("\\", "/").rpartition("/")[2] for name in names]
    matches = [_NUMBERED.fullmatch(file) for file in files]
    if all(matches):
        of_image = [int(match[1]) for match in matches if match]
        return [row for row, number in enumerate(of_image) if number in listed]
    order = sorted(range(len(names)), key=files.__getitem__)
    return sorted(row for number, row in enumerate(order, 1) if number in listed)


def lines_of(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
      EvaluationError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text"
        raise EvaluationError(f"{path}: cannot be read ({why})") from error
