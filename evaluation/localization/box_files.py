"""Files of the boxes of all windows, which are merged again without a network, and their guesses.

--mode=evaluate --config.evaluation.save_scores=True writes them with the protocols that merge
boxes; `evaluation.merge` reads several.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import files
from evaluation.errors import EvaluationError
from evaluation.localization import submissions
from evaluation.localization.merging import Merging, Windows, guesses_of
from evaluation.localization.official import NO_GUESSES, Guesses, Truth, official_errors
from evaluation.localization.regression import in_pixels, region_overlaps
from evaluation.localization.submissions import Names

_COLUMNS = [field.name for field in dataclasses.fields(Windows)]
FORMS = {"kaggle": ".csv", "ilsvrc": ".txt"}


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """The images of a split, and what is known of them.

    Attributes:
      names: of images and classes.
      split: its name.
      sizes: int32 [count, 2], height and width of the upright images; 0 where there is none.
      marks: int32 [count], their EXIF orientations from 1 to 8.
      annotated: int32 [count, 2], width and height that annotations give; 0 without one.
      truths: of each image, boxes in pixels of the annotation; None for a split without.
    """

    names: Names
    split: str
    sizes: np.ndarray
    marks: np.ndarray
    annotated: np.ndarray
    truths: list[Truth] | None


def guesses(looks: Sequence[Windows], subject: Subject, merging: Merging) -> list[Guesses]:
    """The guesses of every image of a split, in whole pixels of its annotation, or of itself.

    Args:
      looks: see `guesses_of`.
      subject: the images.
      merging: constants.

    Raises:
      EvaluationError: see `guesses_of`.
    """
    index = looks[0].index
    found = guesses_of(looks, subject.sizes[index], merging)
    of_all = [NO_GUESSES] * len(subject.names.images)
    for row, guess in zip(index, found, strict=True):
        if len(guess.labels):
            sizes, annotated, marks = (
                np.repeat(of[row][None], len(guess.labels), axis=0)
                for of in (subject.sizes, subject.annotated, subject.marks)
            )
            box = np.rint(in_pixels(guess.boxes, sizes, annotated, marks))
            box[:, 2:] = np.maximum(box[:, 2:], box[:, :2])  # a pixel at least
            of_all[row] = guess._replace(boxes=box)
    return of_all


def errors(found: list[Guesses], subject: Subject, excluded: Sequence[int] = ()) -> dict[str, Any]:
    """The errors of guesses, where the true boxes are known.

    Args:
      found: from `guesses`.
      subject: the images; without true boxes there are no errors.
      excluded: positions of the images that are left out of the localization error.

    Returns:
      `localization_error` and `overlap`, of the best guess of the true class; and what
      `official_errors` returns. Images that could not be read count as wrong.

    Raises:
      EvaluationError: see `official.localized`.
    """
    if subject.truths is None:
        return {}
    official = official_errors(found, subject.truths, excluded)
    best, left_out = [], set(excluded)
    for row, (guess, truth) in enumerate(zip(found, subject.truths, strict=True)):
        if len(truth.of_class) and row not in left_out:
            own, others = (
                np.add(boxes, [0, 0, 1, 1])  # around the last pixels
                for boxes in (guess.boxes[guess.labels == truth.label], truth.of_class)
            )
            best.append(max((region_overlaps(box, others).max() for box in own), default=0.0))
    error = official["top5_localization_error"]
    return {"localization_error": error, "overlap": float(np.mean(best)), **official}


def write_guesses(path: Path, found: list[Guesses], names: Names) -> Path:
    """Writes guesses in both forms, PATH.csv and PATH.txt; returns the first.

    Raises:
      EvaluationError, OSError: see `submissions.write`.
    """
    for form, suffix in FORMS.items():
        submissions.write(Path(f"{path}{suffix}"), form, found, names)
    return Path(f"{path}{FORMS['kaggle']}")


def write(path: Path, looks: Sequence[Windows], subject: Subject, about: dict[str, str]) -> None:
    """Writes the boxes of all windows.

    Args:
      path: of the `.npz` file; replaced atomically.
      looks: of the scales.
      subject: the images.
      about: text by name: `protocol` and whatever tells where the boxes are from.

    Raises:
      OSError: it cannot be written.
    """
    truths = subject.truths
    arrays: dict[str, Any] = {
        "looks": len(looks),
        "images": np.array(subject.names.images, np.str_),
        "class_names": np.array(subject.names.classes, np.str_),
        "split": subject.split,
        "sizes": subject.sizes,
        "marks": subject.marks,
        "annotated": subject.annotated,
        **{f"about_{name}": text for name, text in about.items()},
        **{
            f"{column}_{number}": getattr(look, column)
            for number, look in enumerate(looks)
            for column in _COLUMNS
        },
    }
    if truths is not None:
        arrays["true_label"] = np.array([truth.label for truth in truths])
        arrays["true_counts"] = np.array([len(truth.boxes) for truth in truths])
        arrays["true_boxes"] = np.concatenate([truth.boxes.reshape(-1, 4) for truth in truths])
        arrays["true_labels"] = np.concatenate([truth.labels for truth in truths])
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, shared=True) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: Path) -> tuple[list[Windows], Subject]:
    """Reads what `write` wrote.

    Raises:
      EvaluationError: there is no such file, or it is another or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            looks = [
                Windows(*(saved[f"{column}_{number}"] for column in _COLUMNS))
                for number in range(int(saved["looks"]))
            ]
            truths = None
            if "true_label" in saved:
                ends = np.cumsum(saved["true_counts"])[:-1]
                columns = (np.split(saved[n], ends) for n in ("true_boxes", "true_labels"))
                truths = [
                    Truth(int(label), boxes, labels)
                    for label, boxes, labels in zip(saved["true_label"], *columns, strict=True)
                ]
            names = Names(saved["images"].tolist(), saved["class_names"].tolist())
            return looks, Subject(
                names,
                str(saved["split"]),
                saved["sizes"],
                saved["marks"],
                saved["annotated"],
                truths,
            )
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file") from error
    except Exception as error:  # damaged files fail in many ways
        raise EvaluationError(
            f"{path}: no file of boxes, or damaged ({str(error)[:100]}); they are written by "
            "--mode=evaluate --config.evaluation.save_scores=True with a protocol that merges boxes"
        ) from error
