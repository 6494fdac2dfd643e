"""What windows over whole images say: the boxes of a regressor, the scores of a classifier.

A network slides over the rescaled image (`vision_models.dense`). Its output at a position is that
for the crop which begins there, so that a box in units of the crop is moved to the crop's place.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from devices import collectives
from devices.xla import compiler_options, platform_of
from evaluation.errors import EvaluationError
from evaluation.localization.merging import Windows
from evaluation.localization.regression import edges
from evaluation.preprocessing import whole_input
from evaluation.protocols.protocol import Dense, Protocol
from evaluation.steps import over_positions
from vision_models.functional import PureNetwork

# Name -> array [B, ...], of a batch.
Found = dict[str, Any]
Step = Callable[..., Found]
# Of an image its position in the split, labels [k], their scores [k], boxes [p, k, 4] as shares of
# the image, and confidences [p, k].
Part = tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def views_of(protocol: Protocol) -> Dense:
    """The views of a protocol that merges boxes: the same at each of its scales."""
    found = {views for look in protocol.looks for views in look.views}
    (views,) = found
    assert isinstance(views, Dense)
    return views


def check_windows(name: str, whose: str, network: PureNetwork, offsets: bool) -> None:
    """Checks that a network has outputs at the positions of a window.

    Args:
      name: of the protocol.
      whose: which network it is, in words.
      network: the network.
      offsets: see `Dense`.

    Raises:
      EvaluationError: it has not.
    """
    try:
        network.window_places(offsets)
    except ValueError as error:
        raise EvaluationError(f"evaluation.protocol={name}: {whose}: {error}") from error


def box_step(
    network: PureNetwork, mesh: Mesh, param_specs: Any, *, crop: int, offsets: bool, dtype: str
) -> Step:
    """The compiled function of a regressor, for whole images.

    Its arguments are parameters, statistics, normalization, images uint8 [B, height, width, 3],
    their sizes without padding int32 [B, 2], and labels int32 [B, k].

    It returns `boxes` float32 [B, P, k, 4]: for every window the box of each of the labels, as
    left, top, right and bottom in pixels of the image; `begins` int32 [B, P, 2], each window's
    first row and column; and `there` bool [B, P], whether the window lies in the image.

    Args:
      network, mesh, param_specs, dtype: see `make_steps`.
      crop: side of a window in pixels.
      offsets: see `Dense`.
    """
    places = network.window_places(offsets)

    def local(
        params: Any,
        statistics: Any,
        normalization: dict[str, Array],
        images: Array,
        valid: Array,
        labels: Array,
    ) -> Found:
        seen = whole_input(images, valid, normalization, jnp.array(False), dtype=dtype)
        maps = network.score_maps(params, statistics, seen, valid, offsets, True)
        outputs, begins, there = flat(maps, places, crop, valid)
        boxes = outputs.reshape(*outputs.shape[:2], -1, 4)
        if boxes.shape[2] > 1:
            boxes = jnp.take_along_axis(boxes, labels[:, None, :, None], axis=2)
        else:
            boxes = jnp.broadcast_to(boxes, (*boxes.shape[:2], labels.shape[1], 4))
        corner = jnp.tile(begins[:, :, None, ::-1], 2).astype(jnp.float32)
        return {"boxes": edges(boxes) * crop + corner, "begins": begins, "there": there}

    return _compiled(local, mesh, param_specs, rows=3)


def class_step(
    network: PureNetwork,
    mesh: Mesh,
    param_specs: Any,
    *,
    views: Dense,
    size: int,
    classes: int,
    dtype: str,
) -> Step:
    """The compiled function of a classifier, for whole images.

    Its arguments are those of `box_step`'s. The labels that it is given count, unless they are
    negative: then the most probable ones are taken.

    It returns `labels` int32 [B, k]; `scores` float32 [B, k], their probabilities in the image,
    over all windows as `views` says; `confidences` float32 [B, P, k], those in each window; and
    `begins` and `there` as `box_step`.

    Args:
      network, mesh, param_specs, dtype: see `make_steps`.
      views: what is averaged over windows, and their offsets.
      size: side of a window in pixels.
      classes: k, at most as many as there are; 1 where labels are given.
    """
    places = network.window_places(views.offsets)

    def local(
        params: Any,
        statistics: Any,
        normalization: dict[str, Array],
        images: Array,
        valid: Array,
        given: Array,
    ) -> Found:
        seen = whole_input(images, valid, normalization, jnp.array(False), dtype=dtype)
        maps = network.score_maps(params, statistics, seen, valid, views.offsets, True)
        whole = over_positions(maps, of=views.of, maximum=views.maximum)
        if views.of == "scores" or views.maximum:
            whole = jax.nn.log_softmax(whole)
        logits, begins, there = flat(maps, places, size, valid)
        labels = jnp.where(given < 0, lax.top_k(whole, classes)[1].astype(jnp.int32), given)
        confidences = jnp.take_along_axis(jax.nn.softmax(logits), labels[:, None], axis=2)
        scores = jnp.exp(jnp.take_along_axis(whole, labels, axis=1))
        return {
            "labels": labels, "scores": scores, "confidences": confidences, "begins": begins,
            "there": there,
        }  # fmt: skip

    return _compiled(local, mesh, param_specs, rows=3)


def flat(
    maps: list[tuple[Array, Array]],
    places: tuple[int, list[tuple[int, int]]],
    size: int,
    valid: Array,
) -> tuple[Array, Array, Array]:
    """The windows of all maps in a row.

    Args:
      maps, places: from `PureNetwork.score_maps` and `window_places`.
      size: side of a window in pixels.
      valid: int32 [B, 2], height and width of each image.

    Returns:
      Outputs [B, P, n]; first rows and columns, int32 [B, P, 2]; and bool [B, P], whether the
      window lies in the image. With padding there are outputs of windows that reach beyond it.
    """
    spacing, shifts = places
    outputs, begins, there = [], [], []
    for (scores, cells), shift in zip(maps, shifts, strict=True):
        count, height, width = scores.shape[:3]
        grid = jnp.stack(jnp.mgrid[:height, :width], axis=-1).reshape(1, -1, 2)
        first = (grid * spacing + jnp.array(shift)).astype(jnp.int32)
        outputs.append(scores.reshape(count, height * width, scores.shape[-1]))
        begins.append(jnp.broadcast_to(first, (count, *first.shape[1:])))
        inside = (grid < cells[:, None]) & (first + size <= valid[:, None])
        there.append(inside.all(axis=-1))
    return (
        jnp.concatenate(outputs, axis=1),
        jnp.concatenate(begins, axis=1),
        jnp.concatenate(there, axis=1),
    )


def _compiled(function: Any, mesh: Mesh, param_specs: Any, *, rows: int) -> Any:
    """Compiled on a mesh; the last `rows` arguments and all results are split over `data`."""
    split = collectives.split(mesh, "data")
    everywhere = PartitionSpec()
    sharded = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(param_specs, everywhere, everywhere, *[split] * rows),
        out_specs=split,
    )
    return jax.jit(sharded, compiler_options=compiler_options(platform_of(mesh)))


def of_image(
    boxes: Found, row: int, crop: int, classes: Found | None, other: int
) -> tuple[np.ndarray, np.ndarray]:
    """The windows of one image, and what the classifier says of each.

    A window has the scores of the classifier's window whose centre is nearest to its own.

    Args:
      boxes, row: results of a `box_step` in host memory, and which row of the batch.
      crop: side of the regressor's windows.
      classes: results of a `class_step`; None: every window counts alike.
      other: side of the classifier's windows.

    Returns:
      Boxes [p, k, 4] in pixels, and confidences [p, k].
    """
    there = boxes["there"][row]
    found = boxes["boxes"][row][there]
    if classes is None:
        return found, np.ones(found.shape[:2], np.float32)
    scored = classes["there"][row]
    confidences = classes["confidences"][row][scored]
    if not len(confidences):
        return found, np.broadcast_to(classes["scores"][row], found.shape[:2])
    middles = boxes["begins"][row][there] + crop / 2
    others = classes["begins"][row][scored] + other / 2
    apart = ((middles[:, None] - others[None]) ** 2).sum(axis=-1)
    return found, confidences[apart.argmin(axis=1)]


def joined(parts: list[Part], classes: int) -> Windows:
    """Windows of a split from those of its images, by ascending position in the split.

    Args:
      parts: of each image; of one that is there twice the first counts. A process may have none.
      classes: k, number of labels of each image.
    """
    of: dict[int, Any] = {}
    for part in parts:
        of.setdefault(part[0], part)
    index = sorted(of)
    labels, scores, boxes, confidences = (
        [of[number][column] for number in index] for column in range(1, 5)
    )
    return Windows(
        np.array(index, np.int32),
        np.array(labels, np.int32).reshape(-1, classes),
        np.array(scores, np.float32).reshape(-1, classes),
        np.array([len(of_one) for of_one in boxes], np.int32),
        np.concatenate([np.zeros((0, classes, 4), np.float32), *boxes]).astype(np.float32),
        np.concatenate([np.zeros((0, classes), np.float32), *confidences]).astype(np.float32),
    )


def gathered(windows: Windows, gather_rows: Callable[..., tuple[np.ndarray, ...]]) -> Windows:
    """The windows of all processes' images.

    Args:
      windows: of this process's images.
      gather_rows: of `devices.mesh`.
    """
    index, labels, scores, counts = gather_rows(
        windows.index, windows.labels, windows.scores, windows.counts
    )
    boxes, confidences = gather_rows(windows.boxes, windows.confidences)
    ends = np.cumsum(counts)
    return joined(
        [
            (int(index[n]), labels[n], scores[n], boxes[end - counts[n] : end],
             confidences[end - counts[n] : end])
            for n, end in enumerate(ends)
        ],
        windows.labels.shape[1],
    )  # fmt: skip
