"""What a network is trained for, as functions of its outputs: classes, or boxes.

A network's last layer has as many outputs as its objective needs. The training step asks for
`totals` and `losses`, validation and evaluation for `rows` and `means`; nothing else in them
differs between objectives.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jax import Array

from evaluation import metrics
from evaluation.scores import Scores

Batch = dict[str, Array]
NumpyBatch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a network learns.

    Attributes:
      name: `classes`, or in `loss.boxes` of a config.
      error: name of the error by which checkpoints are compared and plateaus noticed.
      sums: names of the sums that `totals` returns, `examples` and `loss` among them.
      outputs: number of classes -> number of the network's outputs.
      losses: outputs float32 [B, outputs], batch -> the loss of each example, [B].
      totals: outputs, batch -> sums over the batch, float32 scalars.
      rows: batch and outputs in host memory -> float32 [B, columns], what is kept of each example.
      means: the rows of a split, in place of scores -> the means over its examples; every process
        of a launch calls it.
      last_layer: random key and the drawn parameters of a last layer (`kernel`, `bias`) -> those it
        starts from.
    """

    name: str
    error: str
    sums: tuple[str, ...]
    outputs: Callable[[int], int]
    losses: Callable[[Array, Batch], Array]
    totals: Callable[[Array, Batch], dict[str, Array]]
    rows: Callable[[NumpyBatch, np.ndarray], np.ndarray]
    means: Callable[[Scores], dict[str, float]]
    last_layer: Callable[[Array, dict[str, Array]], dict[str, Array]] = lambda key, drawn: drawn


def _cross_entropy(logits: Array, batch: Batch) -> Array:
    return metrics.cross_entropy(jax.nn.log_softmax(logits), batch["label"])


def _totals(logits: Array, batch: Batch) -> dict[str, Array]:
    return metrics.totals(jax.nn.log_softmax(logits), batch["label"])


CLASSES = Objective(
    "classes",
    "top1_error",
    metrics.SUMS,
    lambda classes: classes,
    _cross_entropy,
    _totals,
    lambda batch, outputs: outputs,
    metrics.means,
)
