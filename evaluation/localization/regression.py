"""Regression of boxes: what a network's outputs mean, the loss, and how good they are.

A single-class regressor (`scr`) has four outputs, a per-class regressor (`pcr`) four for each class
(Simonyan and Zisserman 2015, appendix A.1). A box is its centre's x and y, its width and its
height, as shares of the side of the crop. Boxes in batches are left, top, right and bottom.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from devices.mesh import gather_rows
from evaluation.objective import Batch, NumpyBatch, Objective
from evaluation.scores import Scores

ERROR = "localization_error"
SUMS = ("examples", ERROR, "overlap", "loss")


def outputs(name: str, classes: int) -> int:
    """The number of outputs of `scr` or `pcr`."""
    return 4 if name == "scr" else 4 * classes


def of_class(outputs: Array, labels: Array) -> Array:
    """The regressed box of one class: [B, 4] or [B, 4 classes], int32 [B] -> [B, 4]."""
    boxes = outputs.reshape(len(outputs), -1, 4)
    if boxes.shape[1] == 1:
        return boxes[:, 0]
    of = jnp if isinstance(outputs, Array) else np
    found: Array = of.take_along_axis(boxes, labels[:, None, None], axis=1)[:, 0]
    return found


def last_layer(key: Array, drawn: dict[str, Array]) -> dict[str, Array]:
    """What a last layer of boxes starts from: about the box in the middle, of half the sides.

    The kernel is Gaussian with deviation .01, as VGG's new layers are (section 3.1). With biases of
    0, or outputs of deviation 1, the first gradients are large and say nothing of places.

    Args:
      key: draws the kernel.
      drawn: `kernel` and `bias`, as the network's definition draws them.
    """
    kernel = 0.01 * jax.random.normal(key, drawn["kernel"].shape, jnp.float32)
    return {"kernel": kernel, "bias": jnp.full_like(drawn["bias"], 0.5)}


def edges(centred: Array) -> Array:
    """Centre, width and height -> left, top, right and bottom; [..., 4]."""
    of = jnp if isinstance(centred, Array) else np
    middle, half = centred[..., :2], centred[..., 2:] / 2
    return of.concatenate([middle - half, middle + half], axis=-1)


def centred(box: Array) -> Array:
    """The inverse of `edges`."""
    low, high = box[..., :2], box[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def overlap(box: Any, others: Any) -> Any:
    """Intersection over union of regions, [B, 4] with each of [B, N, 4] -> [B, N].

    With edges around the last pixels it equals `official.overlaps`. 0 for a region without area.
    """
    of = jnp if isinstance(box, Array) else np
    box = box[:, None]
    low, high = of.maximum(box[..., :2], others[..., :2]), of.minimum(box[..., 2:], others[..., 2:])
    common = (high - low).clip(0).prod(axis=-1)
    areas = [(x[..., 2:] - x[..., :2]).clip(0).prod(axis=-1) for x in (box, others)]
    return common / of.maximum(areas[0] + areas[1] - common, 1e-12)


def region_overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`overlap` of one region, [4], with each of [n, 4] -> [n]."""
    found: np.ndarray = overlap(box[None], others[None])[0]
    return found


def _own(batch: Batch) -> Array:
    """Which boxes of each example are of its class: bool [B, N]."""
    boxes = batch["boxes"]
    sides = boxes[..., 2:] - boxes[..., :2]
    return (batch["box_labels"] == batch["label"][:, None]) & (sides > 0).all(axis=-1)


def _target(batch: Batch) -> tuple[Array, Array]:
    """The box to be learned, [B, 4], and whether there is one, [B].

    Of several it is the one of which the crop shows most, which no paper says.
    """
    own, shown = _own(batch), batch["boxes"].clip(0, 1)
    areas = jnp.where(own, (shown[..., 2:] - shown[..., :2]).prod(axis=-1), -1)
    best = jnp.argmax(areas, axis=1)
    return jnp.take_along_axis(batch["boxes"], best[:, None, None], axis=1)[:, 0], own.any(axis=1)


def losses(outputs: Array, batch: Batch) -> Array:
    """Half of the squared Euclidean distance; 0 for examples without a box: -> [B]."""
    target, there = _target(batch)
    distance = of_class(outputs, batch["label"]) - centred(target)
    return jnp.where(there, jnp.sum(distance**2, axis=1) / 2, 0)


def totals(outputs: Array, batch: Batch) -> dict[str, Array]:
    """Sums over the examples that have a box of their class, by the names in `SUMS`."""
    there = _own(batch).any(axis=1)
    best = _best_overlap(outputs, batch)
    return {
        "examples": jnp.sum(there.astype(jnp.float32)),
        ERROR: jnp.sum((there & (best < 0.5)).astype(jnp.float32)),
        "overlap": jnp.sum(jnp.where(there, best, 0)),
        "loss": jnp.sum(losses(outputs, batch)),
    }


def _best_overlap(outputs: Array, batch: Batch) -> Array:
    box = edges(of_class(outputs, batch["label"]))
    return jnp.where(_own(batch), overlap(box, batch["boxes"]), -1).max(axis=1)


def in_square(batch: NumpyBatch, crop: tuple[float, float]) -> NumpyBatch:
    """Boxes in shares of a square as shares of its central crop.

    Args:
      batch: with `boxes`, [B, N, 4] in shares of the square.
      crop: where the crop begins, and its side, as shares of the square's side.
    """
    begin, side = crop
    return batch | {"boxes": ((batch["boxes"] - begin) / side).astype(np.float32)}


def rows(batch: NumpyBatch, outputs: np.ndarray, crop: tuple[float, float]) -> np.ndarray:
    """What is kept of each example of an evaluation, float32 [B, 6].

    The regressed box of its own class as left, top, right and bottom, in shares of the central
    square; the best overlap with a true box, and the loss, both NaN where there is no box.

    Args:
      batch: of the central square.
      outputs: [B, 4] or [B, 4 classes], of its central crop.
      crop: see `in_square`.
    """
    seen = {k: jnp.asarray(v) for k, v in in_square(batch, crop).items() if k in _READ}
    given = jnp.asarray(outputs)
    box = edges(of_class(given, seen["label"])) * crop[1] + crop[0]
    there = _own(seen).any(axis=1)
    found = [jnp.where(there, of(given, seen), jnp.nan) for of in (_best_overlap, losses)]
    return np.asarray(jnp.concatenate([box, jnp.stack(found, axis=1)], axis=1), np.float32)


_READ = ("label", "boxes", "box_labels")


def of_image(boxes: np.ndarray, scaled: np.ndarray, side: int, pad: int) -> np.ndarray:
    """Boxes in shares of the padded central square as shares of the image, clipped to it.

    Args:
      boxes: [N, 4].
      scaled: int [N, 2], height and width of the rescaled images.
      side: of the square, in pixels, without its padding.
      pad: pixels around it.

    Returns:
      float64 [N, 4].
    """
    margin = (scaled[:, ::-1] - side) // 2 - pad
    pixels = boxes.astype(np.float64) * (side + 2 * pad) + np.tile(margin, 2)
    shares: np.ndarray = (pixels / np.tile(scaled[:, ::-1], 2)).clip(0, 1)
    return shares


def in_pixels(
    shares: np.ndarray, sizes: np.ndarray, annotated: np.ndarray, marks: np.ndarray
) -> np.ndarray:
    """Boxes in shares of the image as xmin, ymin, xmax and ymax of their first and last pixels.

    Args:
      shares: [N, 4], around the last pixels, of the upright images.
      sizes: int [N, 2], height and width of the upright images.
      annotated: int [N, 2], width and height that annotations give, in whose pixels the true boxes
        are; those of an image without one are its own.
      marks: int [N], EXIF orientations from 1 to 8. Boxes are of the image as it is stored, unless
        the annotation gives the size of the upright one.
    """
    own = sizes[:, ::-1].astype(np.int64)
    shares = shares.copy()
    for row in np.flatnonzero(marks != 1):
        shares[row], own[row] = _as_stored(shares[row], own[row], annotated[row], marks[row])
    shown = np.where((annotated > 0).all(axis=1, keepdims=True), annotated, own)
    found: np.ndarray = shares * np.tile(shown, 2) - [0, 0, 1, 1]
    return found


def _as_stored(
    box: np.ndarray, size: np.ndarray, annotated: np.ndarray, mark: int
) -> tuple[np.ndarray, np.ndarray]:
    """A box and the width and height of an image as it is stored, from those of the upright one.

    The inverse of `input_pipeline.boxes.as_read`.
    """
    turned = mark >= 5
    tells = turned and annotated.all() and size[0] != size[1]
    if tells and (annotated[0] > annotated[1]) == (size[0] > size[1]):  # it was shown upright
        return box, size
    left, top, right, bottom = box
    if mark in (2, 3, 6, 7):
        left, right = 1 - right, 1 - left
    if mark in (3, 4, 7, 8):
        top, bottom = 1 - bottom, 1 - top
    if turned:
        return np.array([top, left, bottom, right]), size[::-1]
    return np.array([left, top, right, bottom]), size


def means(kept: Scores, excluded: Sequence[int] = ()) -> dict[str, float]:
    """The means over the examples that have a box; `examples` is the number of all examples.

    Args:
      kept: `rows` in place of scores; this process's share.
      excluded: indices of the examples that are left out of the means.
    """
    index, found = gather_rows(kept.index, kept.scores)
    _, first = np.unique(index, return_index=True)
    best, loss = found[first][:, 4:].astype(np.float64).T
    there = ~np.isnan(best) & ~np.isin(index[first], excluded)
    counted = int(there.sum())
    return {
        "examples": len(first),
        "localized_examples": counted,
        ERROR: float((best[there] < 0.5).mean()) if counted else math.nan,
        "overlap": float(best[there].mean()) if counted else math.nan,
        "loss": float(loss[there].mean()) if counted else math.nan,
    }


def objective(name: str, crop: tuple[float, float]) -> Objective:
    """The objective `scr` or `pcr`.

    Args:
      name: of it.
      crop: where the central crop of the square that is evaluated begins, and its side, as shares
        of the square's side.
    """
    return Objective(
        name,
        ERROR,
        SUMS,
        functools.partial(outputs, name),
        losses,
        totals,
        functools.partial(rows, crop=crop),
        means,
        last_layer,
    )
