"""Evaluation of a network over a split: every example once, at any batch size and mesh."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from devices import collectives
from devices.xla import compiler_options
from evaluation import inputs, metrics

Totals = dict[str, Array]
Step = Callable[[Any, Any, dict[str, Array], dict[str, Array]], Totals]


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """How to evaluate a network.

    Attributes:
      apply: (parameters, statistics, images) -> logits.
      mesh: has an axis `data`, over which batches are split.
      param_specs: how parameters lie on the mesh.
      views: int32 [views, 3] of `protocols.views`.
      crop: pixels of a view.
      aligned: see `inputs.view_input`.
      dtype: of the computation.
    """

    apply: Callable[[Any, Any, Array], Array]
    mesh: Mesh
    param_specs: Any
    views: np.ndarray
    crop: int
    aligned: bool
    dtype: str

    def make_step(self) -> Step:
        """Compiles (parameters, statistics, normalization, batch) -> `metrics.totals`."""

        def local(
            params: Any, statistics: Any, normalization: dict[str, Array], batch: dict[str, Array]
        ) -> Totals:
            log_p = self.log_probabilities(params, statistics, normalization, batch["image"])
            sums = metrics.totals(log_p, batch["label"], batch["mask"])
            return collectives.total(sums, self.mesh, "data")

        replicated = PartitionSpec()
        sharded = jax.shard_map(
            local,
            mesh=self.mesh,
            in_specs=(
                self.param_specs,
                replicated,
                replicated,
                collectives.split(self.mesh, "data"),
            ),
            out_specs=replicated,
        )
        return jax.jit(sharded, compiler_options=compiler_options())

    def log_probabilities(
        self, params: Any, statistics: Any, normalization: dict[str, Array], images: Array
    ) -> Array:
        """Log of the softmax averaged over the views: uint8 [B, R, R, 3] -> [B, classes]."""

        def view_log_p(view: Array) -> Array:
            seen = inputs.view_input(
                images, normalization, view, size=self.crop, aligned=self.aligned, dtype=self.dtype
            )
            return jax.nn.log_softmax(self.apply(params, statistics, seen))

        each = lax.map(view_log_p, jnp.asarray(self.views))  # one view at a time: less memory
        return jax.nn.logsumexp(each, axis=0) - jnp.log(len(self.views))


def evaluate(
    step: Step,
    params: Any,
    statistics: Any,
    normalization: dict[str, Array],
    batches: Iterable[dict[str, np.ndarray]],
    place: Callable[[dict[str, np.ndarray]], dict[str, Array]],
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Runs a compiled evaluation step over a split.

    Args:
      step: from `Evaluator.make_step`.
      params, statistics, normalization: on the mesh.
      batches: `image`, `label` and `mask`, padded to a fixed size.
      place: puts a batch on the mesh.
      should_stop: asked before each batch.

    Returns:
      `examples`, `loss`, `top1_error`, `top5_error` (fractions of 1); None if stopped.
    """
    totals: Totals | None = None
    for batch in batches:
        if should_stop():
            return None
        sums = step(params, statistics, normalization, place(batch))
        totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
    assert totals is not None, "a split has at least one example"
    return metrics.averages(totals)
