"""Boxes of objects in what a crop shows: they go where `augment` puts their pixels."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from input_pipeline import augment
from input_pipeline.augment import Crops
from input_pipeline.boxes import Boxes

# Points along each side of a box whose sides become curves, by the distortion of a lens.
_ALONG = 32


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which boxes of an example a batch has; the fields `data.boxes`.

    Attributes:
      count: at most so many for each example; those of its own class come first.
      extent: of a box that a training crop cuts, `whole`, which then extends beyond the crop, or
        the part that is `visible`.
      least_visible: a box of which a training crop shows a smaller share of its area is left out.
        (Sermanet et al. 2014 train their regressor on crops that show half.)
    """

    count: int
    extent: str = "whole"
    least_visible: float = 0.0


def arrays(found: np.ndarray, labels: np.ndarray, own: int, count: int) -> tuple[np.ndarray, ...]:
    """Boxes of an example as rows of a batch.

    Args:
      found: float [n, 4].
      labels: int [n], of the objects.
      own: the example's label, whose boxes come first.
      count: number of rows.

    Returns:
      float32 [count, 4] and int32 [count], with rows of zeros and labels of -1 at the end.
    """
    rows = np.argsort(labels != own, kind="stable")[:count]
    padded, of = np.zeros((count, 4), np.float32), np.full(count, -1, np.int32)
    padded[: len(rows)], of[: len(rows)] = found[rows], labels[rows]
    return padded, of


def in_crop(
    upright: Boxes,
    crops: Crops,
    uniform: Sequence[float],
    size: tuple[int, int],
    wanted: Wanted,
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes that a training crop shows, at least in part.

    Args:
      upright: from `boxes.as_read`, around their last pixels (`boxes.extents`).
      crops, uniform: as for `augment.take`.
      size: height and width of the upright image.
      wanted: the part that is meant, and which boxes are left out.

    Returns:
      float64 [n, 4], left, top, right and bottom as shares of the crop's side; and int32 [n], their
      labels.
    """
    whole, visible = _seen(upright.edges, crops, uniform, *size)
    areas = [(of[:, 2:] - of[:, :2]).clip(0).prod(axis=1) for of in (whole, visible)]
    kept = (areas[1] > 0) & (areas[1] >= wanted.least_visible * areas[0])
    found = whole if wanted.extent == "whole" else visible
    return found[kept] / crops.crop, upright.labels[kept]


def in_square(upright: Boxes, crops: Crops, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """All boxes, whole, as shares of the side of a central square; see `in_crop`.

    Those at the margins of the image extend beyond the square, or lie outside.
    """
    whole, _ = _seen(upright.edges, crops, augment.MIDDLE.tolist(), *size)
    return whole / crops.crop, upright.labels


def _seen(
    edges: np.ndarray, crops: Crops, uniform: Sequence[float], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes in pixels of the crop, whole and their visible part, float64 [n, 4] each.

    Args:
      edges: float [n, 4], shares of the image's width and height.
      crops, uniform: as for `augment.take`.
      height, width: of the upright image.

    Returns:
      Of a distorted box, the box around it. What is not visible has right <= left or bottom <= top.
    """
    view = augment.view(crops, uniform, height, width)
    top, left, rows, columns = view.box
    scale = np.array([view.scaled[1] / columns, view.scaled[0] / rows] * 2)
    pixels = edges.astype(np.float64) * [width, height, width, height]
    # Of the rescaled image.
    placed = (pixels - [left, top, left, top]) * scale
    first, begin, lines, length = augment.region(view, crops)
    inside = placed.clip([begin, first] * 2, [begin + length, first + lines] * 2)
    offset = np.array([view.offset[1], view.offset[0]] * 2)
    if crops.distorts:
        outlines = [_distorted(box - offset, crops, uniform) for box in placed]
        cut = [_distorted(box - offset, crops, uniform) for box in inside]
        whole = np.array([_around(outline) for outline in outlines]).reshape(-1, 4)
        visible = np.array([_around(_clipped(outline, crops.crop)) for outline in cut])
        empty = (inside[:, 2:] <= inside[:, :2]).any(axis=1)
        visible = np.where(empty[:, None], 0.0, visible.reshape(-1, 4))
    else:
        whole, visible = placed - offset, (inside - offset).clip(0, crops.crop)
    if view.flip:
        whole, visible = (
            np.stack([crops.crop - of[:, 2], of[:, 1], crops.crop - of[:, 0], of[:, 3]], axis=1)
            for of in (whole, visible)
        )
    return whole, visible


def _distorted(box: np.ndarray, crops: Crops, uniform: Sequence[float]) -> np.ndarray:
    """The outline of a box in pixels of the distorted crop, before it is mirrored.

    This is the inverse of `kernels.warp`, which says where each pixel is read.

    Args:
      box: float64 [4], left, top, right, bottom in pixels of the window before distortion.
      crops: how they are distorted.
      uniform: the draws.

    Returns:
      float64 [points, 2], x and y, in the order of the outline.
    """
    matrix, lens = augment.distortion(crops, uniform[augment.DISTORTION])
    left, top, right, bottom = box
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    steps = np.arange(_ALONG)[:, None] / _ALONG if crops.lens else np.zeros((1, 1))
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    outline = np.concatenate([a + (b - a) * steps for a, b in sides])
    radius = crops.crop / 2
    read = outline[:, ::-1] - radius  # (y, x) from the middle
    before = read * _without_lens(np.hypot(*read.T), lens, radius)[:, None]
    return np.linalg.solve(matrix, before.T).T[:, ::-1] + radius


def _without_lens(distance: np.ndarray, lens: float, radius: float) -> np.ndarray:
    """The factor that undoes a lens: r / distance, where distance = (1 + lens r^2 / radius^2) r.

    A barrel (lens below 0) shows nothing beyond a certain distance. What lies there is taken to be
    there.
    """
    found = distance.copy()
    if lens < 0:
        last = radius / math.sqrt(-3 * lens)
        found = np.where(distance < 2 / 3 * last, np.minimum(found, last), last)
    for _ in range(30):
        slope = 1 + 3 * lens * found**2 / radius**2
        excess = (1 + lens * found**2 / radius**2) * found - distance
        found = found - np.where(slope > 1e-6, excess / np.maximum(slope, 1e-6), 0)
        if lens < 0:
            found = np.clip(found, 0, last)
    return np.divide(found, distance, out=np.ones_like(found), where=distance > 0)


def _clipped(outline: np.ndarray, side: float) -> np.ndarray:
    """The part of a polygon inside the square from 0 to `side` (Sutherland and Hodgman 1974)."""
    for axis in (0, 1):
        for sign, limit in ((1.0, 0.0), (-1.0, -side)):
            inner = sign * outline[:, axis] - limit
            kept = []
            for number, (point, depth) in enumerate(zip(outline, inner, strict=True)):
                before, depth_before = outline[number - 1], inner[number - 1]
                if (depth >= 0) != (depth_before >= 0):
                    kept.append(before + (point - before) * depth_before / (depth_before - depth))
                if depth >= 0:
                    kept.append(point)
            outline = np.array(kept).reshape(-1, 2)
    return outline


def _around(outline: np.ndarray) -> np.ndarray:
    """left, top, right, bottom of the box around points [n, 2]; zeros around none."""
    if not len(outline):
        return np.zeros(4)
    return np.concatenate([outline.min(axis=0), outline.max(axis=0)])
