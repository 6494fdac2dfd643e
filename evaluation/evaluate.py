"""Evaluation of a network over a split: every example once, at any batch size and mesh."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jax import Array

from devices.mesh import local_rows
from evaluation.scores import Scores
from evaluation.steps import Step


def evaluate(
    step: Step,
    params: Any,
    statistics: Any,
    normalization: dict[str, Array],
    batches: Iterable[dict[str, np.ndarray]],
    place: Callable[[dict[str, np.ndarray]], dict[str, Array]],
    should_stop: Callable[[], bool] = lambda: False,
    rows: Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray] = lambda batch, scores: scores,
) -> Scores | None:
    """Runs one compiled step of a protocol over a split.

    Args:
      step: from `make_steps`.
      params, statistics, normalization: on the mesh.
      batches: at least one, all of the same size b. Each has `image` uint8
        [b, height, width, 3], `label` and `index` int [b], `mask` float32 [b] (0 for padding and
        for unreadable images) and, for whole images, `valid` int32 [b, 2].
      place: puts a batch on the mesh.
      should_stop: called before each batch; True ends the evaluation.
      rows: batch and the step's result [b, ...] -> what is kept of each example, [b, ...].

    Returns:
      The scores of this process's share, or what `rows` makes of them; None if it was stopped.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def fetch(batch: dict[str, np.ndarray], scores: Array) -> None:
        there = batch["mask"] > 0
        parts.append(
            (
                batch["index"][there].astype(np.int32),
                rows(batch, local_rows(scores))[there],
                batch["label"][there],
            )
        )

    running: tuple[dict[str, np.ndarray], Array] | None = None
    for batch in batches:
        if should_stop():
            return None
        placed = place({name: batch[name] for name in ("image", "valid") if name in batch})
        scores = step(params, statistics, normalization, *placed.values())
        if running is not None:  # the devices compute the next batch meanwhile
            fetch(*running)
        running = batch, scores
    assert running is not None, "a split has at least one example"
    fetch(*running)
    index, found, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(index)
    return Scores(index[order], found[order], label[order])
