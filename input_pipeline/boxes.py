"""Boxes of the objects in an image, as annotators drew them and as its pixels are read."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from input_pipeline import formats
from input_pipeline.errors import UnreadableError


class Boxes(NamedTuple):
    """The annotated objects of one image.

    Attributes:
      edges: float32 [n, 4]: left, top, right and bottom, as shares of the image's width and height
        in 0..1. Times the width and height of the image in pixels they are the coordinates of the
        annotation, whose pixels at both edges are inside.
      labels: int32 [n], of each object; -1 for one that is none of the dataset's classes.
      shown: width and height in pixels of the image as the annotator saw it; zeros where the image
        has no annotation.
    """

    edges: np.ndarray
    labels: np.ndarray
    shown: tuple[int, int]

    @property
    def corners(self) -> np.ndarray:
        """xmin, ymin, xmax, ymax in pixels of the image as shown, float64 [n, 4].

        These are the annotation's numbers, to hundredths of a pixel: float32 has no more.
        """
        width, height = self.shown
        return np.round(self.edges.astype(np.float64) * (width, height, width, height), 2)


NONE = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), (0, 0))


def normalized(corners: Sequence[float], width: float, height: float) -> list[float] | None:
    """Corners in pixels as edges of `Boxes`; None where nothing of the box is in the image.

    What files have: corners the wrong way round, and boxes that leave the image in part or wholly.

    Args:
      corners: xmin, ymin, xmax, ymax, in the pixels of the image as it was shown.
      width, height: of the image as it was shown, above 0.
    """
    across = sorted(min(max(x / width, 0.0), 1.0) for x in corners[0::2])
    down = sorted(min(max(y / height, 0.0), 1.0) for y in corners[1::2])
    if across[0] == across[1] or down[0] == down[1]:
        return None
    return [across[0], down[0], across[1], down[1]]


def extents(boxes: Boxes) -> Boxes:
    """The boxes with edges around their last pixels, which are inside, as regions of the image."""
    if not len(boxes.edges):
        return boxes
    width, height = boxes.shown
    last = np.array([0, 0, 1 / width, 1 / height], np.float32)
    return boxes._replace(edges=np.minimum(boxes.edges + last, np.float32(1)))


def as_read(boxes: Boxes, content: bytes | np.ndarray) -> Boxes:
    """The boxes in the upright image, which is what is read of a file with an orientation mark.

    Annotators were shown images as they are stored: their tools did not follow the marks. Where
    the image is turned by a quarter, the size that was shown tells if that is so.

    Args:
      boxes: as they were drawn.
      content: the image: a file's bytes, or pixels.

    Raises:
      UnreadableError: these bytes are no image.
    """
    if isinstance(content, np.ndarray) or not len(boxes.edges):
        return boxes
    try:
        with Image.open(io.BytesIO(content)) as image:
            mark, (width, height) = formats.orientation(image), image.size
    except Exception as error:  # Pillow fails on damage in many ways
        raise UnreadableError("no image that is known") from error
    if mark >= 5 and width != height:
        shown_wide = boxes.shown[0] > boxes.shown[1]
        if shown_wide != (width > height):  # as the upright image is
            return boxes
    if mark == 1:
        return boxes
    left, top, right, bottom = boxes.edges.T
    if mark >= 5:  # mirrored at the diagonal
        left, top, right, bottom = top, left, bottom, right
    if mark in (2, 3, 6, 7):
        left, right = 1 - right, 1 - left
    if mark in (3, 4, 7, 8):
        top, bottom = 1 - bottom, 1 - top
    shown = boxes.shown[::-1] if mark >= 5 else boxes.shown
    return Boxes(np.stack([left, top, right, bottom], axis=1), boxes.labels, shown)
