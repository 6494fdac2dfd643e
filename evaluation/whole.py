"""Batches of whole images of any size, padded to a few shapes.

Every shape of a batch needs a compilation of its own. Images that were scaled to the same shorter
side differ only in their longer side. A few lengths of it, chosen for the images of a split, add
little padding.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

Shape = tuple[int, int]  # height, width


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images that are evaluated together.

    Attributes:
      shape: height and width that they are padded to.
      rows: int64 [n], positions of the images in the list of sizes; n is at most the batch size.
    """

    shape: Shape
    rows: np.ndarray


def widths(sizes: np.ndarray, most: int = 16, enough: float = 1.02) -> list[Shape]:
    """Chooses the shapes that images are padded to.

    Landscape images (and squares) and portrait images have separate shapes. The fewest shapes are
    taken whose padded images have at most `enough` times the pixels of the images themselves, and
    of that many shapes those with the least padding.

    Args:
      sizes: int [N, 2], height and width of each image; N is at least 1.
      most: largest number of shapes; at least 2 if both orientations occur.
      enough: ratio of padded pixels to the images' own that is accepted.

    Returns:
      At most `most` (height, width): landscape first, then portrait, each by increasing length.

    Raises:
      ValueError: `most` is below the number of orientations.
    """
    groups = [group for group in _by_orientation(sizes) if len(group)]
    if most < len(groups):
        raise ValueError(f"most={most}: lying and upright images need {len(groups)} shapes")
    tables = [_Cuts(group, most) for group in groups]
    true = int(np.prod(np.asarray(sizes, np.int64), axis=1).sum())
    best: list[int] = []
    for total in range(len(groups), most + 1):
        # How many of the shapes are of the first orientation.
        pairs = [[n, total - n] for n in range(1, total)]
        splits = pairs if len(tables) == 2 else [[total]]
        best = min(splits, key=lambda split: _area(tables, split))
        if _area(tables, best) <= enough * true:
            break
    return [
        shape for table, count in zip(tables, best, strict=True) for shape in table.shapes(count)
    ]


def batches(sizes: np.ndarray, shapes: Sequence[Shape], batch_size: int) -> list[Batch]:
    """Distributes images over batches: every image once, at most one short batch per orientation.

    The images that do not fill a batch of their shape are batched with those of the next smaller
    shape, padded to the larger one. The order is a function of the sizes alone.

    Args:
      sizes: int [N, 2], height and width of each image.
      shapes: from `widths`.
      batch_size: largest number of images in a batch.

    Raises:
      ValueError: an image fits into no shape.
    """
    sizes = np.asarray(sizes)
    # By increasing area, so that the first shape that holds an image is the tightest.
    order = sorted(shapes, key=lambda shape: shape[0] * shape[1])
    fits = np.all(np.array(order)[None] >= sizes[:, None], axis=2)
    if not fits.any(axis=1).all():
        row = int(np.argmin(fits.any(axis=1)))
        raise ValueError(f"image {row} of {tuple(sizes[row].tolist())} pixels: no shape holds it")
    shape_of = fits.argmax(axis=1)
    found = []
    for lying in (True, False):
        numbers = [n for n in range(len(order)) if (order[n][0] <= order[n][1]) == lying]
        rows = np.concatenate(
            [np.flatnonzero(shape_of == n) for n in reversed(numbers)] or [np.array([], np.int64)]
        )
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            found.append(Batch(order[shape_of[some[0]]], some))
    return found


def _by_orientation(sizes: np.ndarray) -> list[np.ndarray]:
    """The sizes of landscape images (squares included), and those of portrait images."""
    sizes = np.asarray(sizes, np.int64)
    lying = sizes[:, 0] <= sizes[:, 1]
    return [sizes[lying], sizes[~lying]]


class _Cuts:
    """The shapes with the least padding for images of one orientation: the best 1, 2, ... shapes.

    Dynamic programming over the distinct lengths in ascending order. The last of the best n
    shapes for the shortest images is as long as the longest of these images.
    """

    def __init__(self, sizes: np.ndarray, most: int):
        """Computes the tables.

        Args:
          sizes: int [N, 2], of images of one orientation.
          most: largest number of shapes.
        """
        self.lying = bool(sizes[0, 0] <= sizes[0, 1])
        self.shorter = int(sizes.min(axis=1).max())
        self.lengths, counts = np.unique(sizes.max(axis=1), return_counts=True)
        before = np.concatenate([[0], np.cumsum(counts)])  # number of images below each length
        n = len(self.lengths)
        # cost[i, j]: pixels of the images of the i-th to (j - 1)-th length, padded to one shape.
        cost = np.full((n + 1, n + 1), np.inf)
        for j in range(1, n + 1):
            cost[:j, j] = (before[j] - before[:j]) * self.lengths[j - 1] * self.shorter
        self.area = [np.where(np.arange(n + 1) == 0, 0, np.inf)]
        self.start: list[np.ndarray] = [np.zeros(n + 1, int)]
        for _ in range(min(most, n)):
            total = self.area[-1][:, None] + cost
            self.start.append(total.argmin(axis=0))
            self.area.append(total.min(axis=0))

    def shapes(self, count: int) -> list[Shape]:
        """The best `count` shapes, or one for each length if these are fewer, short to long."""
        end, ends = len(self.lengths), []
        for number in range(min(count, len(self.lengths)), 0, -1):
            ends.append(int(self.lengths[end - 1]))
            end = int(self.start[number][end])
        return [(self.shorter, e) if self.lying else (e, self.shorter) for e in reversed(ends)]


def _area(tables: Sequence[_Cuts], split: Sequence[int]) -> float:
    """Pixels of all padded images if each orientation has the number of shapes in `split`."""
    return sum(
        float(table.area[min(count, len(table.lengths))][-1])
        for table, count in zip(tables, split, strict=True)
    )
