"""Canvases with a handwritten digit at a random place, size and aspect: a task for boxes.

A canvas is black, 224 x 224. Its digit, cut to its ink, is rescaled to a height of 32 to 160 pixels
and a width of .5 to 2 times that (at most 160 as well), and put anywhere. Everything is drawn from
the number of the canvas, so that canvases are made when they are read, the same each time.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from input_pipeline import decode, sources
from input_pipeline.boxes import Boxes
from input_pipeline.datasets import digits, tfds_directories
from input_pipeline.datasets.layout import Asked, Found
from input_pipeline.sources import Examples

SIDE, SMALLEST, LARGEST = 224, 32, 160
# Canvases of each split; the digits of one split are in no other.
COUNTS = {"train": 100_000, "validation": 2_000, "test": 5_000}
# Grey levels from which a pixel of a digit is ink.
_INK = 64


class Placed(NamedTuple):
    """Where a digit is on its canvas: pixels of its top left corner, its height and width."""

    digit: int
    top: int
    left: int
    height: int
    width: int


def find(asked: Asked) -> Found:
    """Finds MNIST as TFDS prepares it in `data.dir`, or without one scikit-learn's digits."""
    if asked.directory:
        found = tfds_directories.find(dataclasses.replace(asked, name="mnist"))
        train, test = (functools.cache(found.splits[split]) for split in ("train", "test"))
        held = {"train": (train, 0, 55_000), "validation": (train, 55_000, 60_000)}
        held["test"] = (test, 0, 10_000)
    else:
        train = functools.cache(digits.find(asked).splits["train"])
        held = {"train": (train, 0, 1200), "validation": (train, 1200, 1400)}
        held["test"] = (train, 1400, 1797)
    splits: dict[str, Callable[[], Examples]] = {
        split: functools.partial(_canvases, split, *of, asked) for split, of in held.items()
    }
    return Found(
        splits,
        tuple(map(str, range(10))),
        layout=f"canvases with digits of {'MNIST' if asked.directory else 'scikit-learn'}",
        labels_from="the digits",
    )


def placed(split: str, row: int, first: int, last: int) -> Placed:
    """Draws the canvas `row` of a split, with one of the digits first to last - 1."""
    rng = np.random.default_rng((list(COUNTS).index(split), row))
    height = int(rng.integers(SMALLEST, LARGEST + 1))
    width = int(np.clip(round(height * 2 ** rng.uniform(-1, 1)), SMALLEST // 2, LARGEST))
    top, left = (int(rng.integers(0, SIDE - length + 1)) for length in (height, width))
    return Placed(int(rng.integers(first, last)), top, left, height, width)


def _canvases(
    split: str, opened: Callable[[], Examples], first: int, last: int, asked: Asked
) -> Examples:
    from_digits = opened()
    labels = sources.labels_of(from_digits, asked.cache_dir)
    count = COUNTS[split]
    place = functools.partial(placed, split, first=first, last=last)

    def read(row: int) -> tuple[np.ndarray, int]:
        at = place(row)
        content, label = from_digits.read(at.digit)
        pixels = decode.pixels(content) if isinstance(content, bytes) else content
        canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
        canvas[at.top : at.top + at.height, at.left : at.left + at.width] = _rescaled(pixels, at)
        return canvas, label

    def boxes(row: int) -> Boxes:
        at = place(row)
        last_pixels = (at.left + at.width - 1, at.top + at.height - 1)
        edges = np.array([[at.left, at.top, *last_pixels]], np.float32) / SIDE
        return Boxes(edges, labels[[at.digit]].astype(np.int32), (SIDE, SIDE))

    return Examples(
        count=count,
        read=read,
        name=lambda row: f"{split}_{row:06d}.png",
        fingerprint=sources.digest("digit canvases", split, from_digits.fingerprint),
        labels=lambda: labels[[place(row).digit for row in range(count)]],
        boxes=boxes,
        boxes_from="where the digits are put",
    )


def _rescaled(pixels: np.ndarray, at: Placed) -> np.ndarray:
    """A digit cut to its ink, uint8 [height, width, 1]."""
    grey = pixels[..., 0]
    rows, columns = (np.flatnonzero((grey >= _INK).any(axis=axis)) for axis in (1, 0))
    ink = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    resized = Image.fromarray(ink).resize((at.width, at.height), Image.Resampling.BILINEAR)
    return np.asarray(resized)[..., None]
