"""Boxes of many windows merged into a few, and one of each class chosen (OverFeat, VGG).

Sermanet et al. 2014, section 4.3: of all pairs of boxes the closest is replaced by its mean, until
none is close. Each box that remains has the sum of the class's scores in the windows that its
boxes came from, and the one with the largest sum is the class's. Boxes of one class are merged with
each other only; those of all scales, and of several networks, are merged together.

How close two boxes are is the sum of the distance between their centres and of what they do not
have in common. The paper gives neither units nor constants, and has the intersection in place of
what lies outside it, by which the most different boxes would be the closest. Here the distance is
in units of the boxes' side (the square root of their mean area), and the other part is 1 less
intersection over union; threshold and weight are options of a config (`evaluation.merge`). Their
defaults are good ones on canvases with digits (docs/localization.md), the only boxes at hand.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.localization.official import GUESSED, NO_GUESSES, Guesses


class Merging(NamedTuple):
    """The constants of the merge, which are not published.

    Attributes:
      threshold: pairs whose score is above it stay apart. It is 0 for equal boxes; beside each
        other, with a side in common, they have 1 + `distance`.
      distance: weight of the distance between centres.
      by_boxes: the order of an image's guesses, and which come first if there are more than five:
        by the sums of scores of their boxes, as in OverFeat; else by the scores of their classes.
    """

    threshold: float = 0.4
    distance: float = 1.0
    by_boxes: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """What windows of a split's images say, at one scale and of one network.

    Attributes:
      index: int32 [N], position of each image in its split, strictly ascending.
      labels: int32 [N, k], the classes whose boxes are there; no class twice.
      scores: float32 [N, k], the probability of each class in the image.
      counts: int32 [N], number of windows of each image.
      boxes: float32 [sum of counts, k, 4]: left, top, right and bottom, around the last pixels, as
        shares of the image's width and height; they may extend beyond it.
      confidences: float32 [sum of counts, k], probability of each class in the window.
    """

    index: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    counts: np.ndarray
    boxes: np.ndarray
    confidences: np.ndarray


def match_scores(box: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """How far boxes are apart: 0 for equal ones.

    Args:
      box: [..., 4].
      others: [..., 4]; both have the same unit along both axes.
      distance: see `Merging`.

    Returns:
      float64, of the shape that the arguments without their last axis have together.
    """
    low, high = np.maximum(box[..., :2], others[..., :2]), np.minimum(box[..., 2:], others[..., 2:])
    common = (high - low).clip(0).prod(axis=-1)
    area, other = ((of[..., 2:] - of[..., :2]).clip(0).prod(axis=-1) for of in (box, others))
    union = np.maximum(area + other - common, 1e-12)
    between = (box[..., :2] + box[..., 2:] - others[..., :2] - others[..., 2:]) / 2
    side = np.sqrt(np.maximum((area + other) / 2, 1e-12))
    found: np.ndarray = distance * np.hypot(*np.moveaxis(between, -1, 0)) / side
    return found + 1 - common / union


def merged(boxes: np.ndarray, merging: Merging) -> tuple[np.ndarray, np.ndarray]:
    """Merges boxes greedily, always the closest pair; of equally close ones the first in order.

    Args:
      boxes: [M, 4], with the same unit along both axes.
      merging: constants.

    Returns:
      float64 [m, 4], the boxes that remain, in the order of the first of those that each came
      from; and int64 [M], which of them each box went into.
    """
    boxes = boxes.astype(np.float64)
    scores = match_scores(boxes[:, None], boxes[None], merging.distance)
    np.fill_diagonal(scores, np.inf)
    into = np.arange(len(boxes))
    # The closest of each row is kept, so that a merge looks at a few rows and not at all pairs.
    closest = scores.argmin(axis=1) if len(boxes) else into
    least = scores[into, closest]
    while len(boxes):
        one = int(least.argmin())
        other = int(closest[one])
        if not least[one] <= merging.threshold:
            break
        one, other = min(one, other), max(one, other)
        boxes[one] = (boxes[one] + boxes[other]) / 2
        into[into == other] = one
        gone = np.isinf(scores[one])
        scores[other], scores[:, other], least[other] = np.inf, np.inf, np.inf
        row = match_scores(boxes[one], boxes, merging.distance)
        row[gone] = np.inf  # itself as well
        row[other] = np.inf
        scores[one], scores[:, one] = row, row
        anew = (closest == one) | (closest == other)
        anew[one] = True
        anew[other] = False
        closest[anew] = scores[anew].argmin(axis=1)
        least[anew] = scores[anew, closest[anew]]
        nearer = (row < least) | ((row == least) & (one < closest) & np.isfinite(row))
        least[nearer], closest[nearer] = row[nearer], one
    left, group = np.unique(into, return_inverse=True)
    return boxes[left], group


def best_box(
    boxes: np.ndarray, confidences: np.ndarray, merging: Merging
) -> tuple[np.ndarray, float]:
    """The merged box with the largest sum of confidences, [4]; and that sum.

    Args:
      boxes: [M, 4], with the same unit along both axes; M is at least 1.
      confidences: [M], of at least 0.
      merging: constants.
    """
    found, group = merged(boxes, merging)
    sums = np.bincount(group, weights=confidences.astype(np.float64), minlength=len(found))
    best = int(sums.argmax())
    return found[best], float(sums[best])


def guesses_of(looks: Sequence[Windows], sizes: np.ndarray, merging: Merging) -> list[Guesses]:
    """The guesses of each image: a box for each of at most five classes.

    A class's score is its mean over scales and networks; at one where it is not among the classes,
    it is 0.

    Args:
      looks: of the scales of one or several networks, all of the same images.
      sizes: [N, 2], height and width of the images in any unit.
      merging: constants.

    Returns:
      For each image labels and boxes, as shares of the image and inside of it. Images without a
      window have no guesses.

    Raises:
      EvaluationError: they are of different images.
    """
    first = looks[0].index
    if any(not np.array_equal(look.index, first) for look in looks):
        raise EvaluationError("boxes of different images cannot be merged")
    begins = [np.concatenate([[0], np.cumsum(look.counts)]) for look in looks]
    found = []
    for row in range(len(first)):
        windows = [
            (look, look.boxes[begin[row] : begin[row + 1]], slice(begin[row], begin[row + 1]))
            for look, begin in zip(looks, begins, strict=True)
        ]
        unit = np.tile(sizes[row][::-1], 2).astype(np.float64)
        rated = []
        for label in dict.fromkeys(int(n) for look in looks for n in look.labels[row]):
            boxes, confidences, score = [], [], 0.0
            for look, of_row, where in windows:
                for place in np.flatnonzero(look.labels[row] == label):
                    boxes.append(of_row[:, place])
                    confidences.append(look.confidences[where, place])
                    score += float(look.scores[row, place]) / len(looks)
            together = np.concatenate(boxes)
            if len(together):
                box, total = best_box(together * unit, np.concatenate(confidences), merging)
                rated.append((total if merging.by_boxes else score, label, box / unit))
        rated.sort(key=lambda of: -of[0])  # of equal ones the first stays first
        labels = np.array([label for _, label, _ in rated[:GUESSED]], np.int64)
        shares = np.array([box for _, _, box in rated[:GUESSED]]).reshape(-1, 4).clip(0, 1)
        found.append(Guesses(labels, shares) if rated else NO_GUESSES)
    return found
