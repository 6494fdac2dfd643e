"""A sheet of sample images of every class, and reading every image once."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import files
from input_pipeline import augment, sources
from input_pipeline.batches import Reading
from input_pipeline.datasets import Dataset
from input_pipeline.decode import UnreadableError
from input_pipeline.errors import DataError
from input_pipeline.report import Report, silent
from input_pipeline.side_by_side import of_each
from input_pipeline.sources import Examples

# Pixels of a sample's side, of the line of text above, and images on a sheet, about.
_SIDE, _TEXT, _IMAGES = 72, 16, 400
_MOST_OF_A_CLASS = 8
_WHITE, _BLACK, _GREY = (255, 255, 255), (0, 0, 0), (190, 190, 190)


def write_sheet(dataset: Dataset, path: Path, cache_dir: Path) -> None:
    """Writes a PNG with up to eight images of every class, the class's name above them.

    They are spread evenly over the class's examples, of the training split if there is one; the
    central square of each is shown. What cannot be read is a grey square. Beyond fifty classes
    there are fewer of each, at least one.

    Args:
      dataset: what is shown.
      path: of the PNG.
      cache_dir: where labels are kept.

    Raises:
      DataError: the file cannot be written.
    """
    examples = next(iter(dataset.splits.values()))
    labels = sources.labels_of(examples, cache_dir)
    there, counts = np.unique(labels, return_counts=True)
    most = min(max(_IMAGES // len(there), 1), _MOST_OF_A_CLASS)
    of_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    shown = {
        int(label): _spread(indices, most) for label, indices in zip(there, of_class, strict=True)
    }
    most = max(map(len, shown.values()))
    wanted = np.concatenate(list(shown.values())).tolist()
    found = of_each(
        lambda number: _square(examples, wanted[number]),
        len(wanted),
        Reading().parallel,
        "samples",
        " images",
    )
    squares = dict(zip(wanted, found, strict=True))
    width, height = most * (_SIDE + 2) + 6, _SIDE + _TEXT + 8
    columns = max(round(math.sqrt(len(there) * height / width)), 1)
    rows = math.ceil(len(there) / columns)
    sheet = Image.new("RGB", (columns * width + 6, rows * height + 6), _WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, (label, indices) in enumerate(shown.items()):
        left, top = 6 + number % columns * width, 6 + number // columns * height
        draw.text((left, top), _fitting(dataset.class_names[label], width - 8, font), _BLACK, font)
        for place, index in enumerate(indices.tolist()):
            square = Image.fromarray(squares[index])
            sheet.paste(square, (left + place * (_SIDE + 2), top + _TEXT))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            sheet.save(temporary, "PNG")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); see --out") from error


def _spread(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the indices, as far from one another as can be."""
    places = np.linspace(0, len(indices) - 1, min(most, len(indices)))
    return indices[np.round(places).astype(int)]


def _fitting(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """A text, cut to a width in pixels; what the font has no way to draw is spelled."""
    try:
        font.getlength(text)
    except UnicodeEncodeError:  # the font of Pillow without FreeType
        text = text.encode("ascii", "backslashreplace").decode()
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-1]
    return text


def _square(examples: Examples, index: int) -> np.ndarray:
    """The central square of an example, uint8 [side, side, 3]; grey where it cannot be read."""
    square = np.empty((_SIDE, _SIDE, 3), np.uint8)
    if _unreadable(examples, index, square) is not None:
        square[:] = _GREY
    return square


def _unreadable(
    examples: Examples, index: int, square: np.ndarray, report: Report = silent
) -> str | None:
    """Writes the central square of an example; why it cannot be read, None if it can."""

    def repaired(reason: str) -> None:
        report(examples.name(index), "repaired", reason)

    try:
        content, _ = examples.read(index)
        augment.take(
            content,
            augment.central_square(len(square)),
            augment.MIDDLE,
            square,
            exact=False,
            repaired=repaired,
        )
    except (UnreadableError, DataError) as error:
        return str(error)
    return None


def verify(
    dataset: Dataset, report: Report, threads: int | None = None
) -> Iterator[tuple[str, int, int]]:
    """Reads every image of every split, all of its bytes, with a progress bar.

    Args:
      dataset: whose images.
      report: called for every image that is repaired or cannot be read.
      threads: as in `Reading`.

    Yields:
      A split, how many images it has, and how many of these cannot be read.
    """
    at_once = Reading(threads=threads).parallel
    for split, examples in dataset.splits.items():

        def check(index: int, examples: Examples = examples) -> bool:
            square = np.empty((_SIDE, _SIDE, 3), np.uint8)
            reason = _unreadable(examples, index, square, report)
            if reason is not None:
                report(examples.name(index), "left out", reason)
            return reason is not None

        title = f"reading {split}"
        faults = sum(of_each(check, examples.count, at_once, title, " images", delay=0))
        yield split, examples.count, faults
