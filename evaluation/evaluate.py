"""Evaluation of a network over a split: every example once, at any batch size and mesh."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from devices import collectives
from devices.mesh import local_rows
from devices.xla import compiler_options
from evaluation.preprocessing import Preprocessing, view_input
from evaluation.protocols.protocol import Protocol
from evaluation.scores import Scores

Step = Callable[[Any, Any, dict[str, Array], Array], Array]


def make_step(
    protocol: Protocol,
    apply: Callable[[Any, Any, Array], Array],
    mesh: Mesh,
    param_specs: Any,
    preprocessing: Preprocessing,
    dtype: str,
) -> Step:
    """Compiles (parameters, statistics, normalization, images) -> scores.

    Images are uint8 [B, square, square, 3], split over `data`; scores float32 [B, classes], the
    log of the softmax averaged over the views, split likewise.

    Args:
      protocol: which views.
      apply: (parameters, statistics, images) -> logits.
      mesh: has an axis `data`, over which batches are split.
      param_specs: how parameters lie on the mesh.
      preprocessing: of the network's images.
      dtype: of the computation.
    """

    def local(
        params: Any, statistics: Any, normalization: dict[str, Array], images: Array
    ) -> Array:
        def of_view(view: Array) -> Array:
            seen = view_input(
                images,
                normalization,
                view,
                size=preprocessing.crop,
                aligned=preprocessing.aligned_mean,
                dtype=dtype,
            )
            return jax.nn.log_softmax(apply(params, statistics, seen))

        # One view at a time: less memory.
        per_view = lax.map(of_view, jnp.asarray(protocol.views))
        return jax.nn.logsumexp(per_view, axis=0) - jnp.log(len(protocol.views))

    replicated, rows = PartitionSpec(), collectives.split(mesh, "data")
    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(param_specs, replicated, replicated, rows),
        out_specs=rows,
    )
    return jax.jit(sharded, compiler_options=compiler_options())


def evaluate(
    step: Step,
    params: Any,
    statistics: Any,
    normalization: dict[str, Array],
    batches: Iterable[dict[str, np.ndarray]],
    place: Callable[[dict[str, np.ndarray]], dict[str, Array]],
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores | None:
    """Runs a compiled evaluation step over a split.

    Args:
      step: from `make_step`.
      params, statistics, normalization: on the mesh.
      batches: `image`, `label`, `index` and `mask` (0 for padding and what could not be read),
        of a fixed size.
      place: puts a batch on the mesh.
      should_stop: asked before each batch.

    Returns:
      The scores of this process's share; None if stopped.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def fetch(batch: dict[str, np.ndarray], scores: Array) -> None:
        there = batch["mask"] > 0
        parts.append(
            (
                batch["index"][there].astype(np.int32),
                local_rows(scores)[there],
                batch["label"][there],
            )
        )

    running: tuple[dict[str, np.ndarray], Array] | None = None
    for batch in batches:
        if should_stop():
            return None
        scores = step(params, statistics, normalization, place({"image": batch["image"]})["image"])
        if running is not None:  # the devices are at the next one meanwhile
            fetch(*running)
        running = batch, scores
    assert running is not None, "a split has at least one example"
    fetch(*running)
    index, found, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Scores(index, found, label)
