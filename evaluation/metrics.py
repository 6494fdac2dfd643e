"""Losses and errors, per example."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from devices.mesh import gather_rows
from evaluation.scores import Scores


def cross_entropy(log_probabilities: Array, labels: Array) -> Array:
    """-log p of the label: [B, classes], int32 [B] -> [B]."""
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]


def smoothing_loss(logits: Array, labels: Array, share: float) -> Array:
    """What smoothing the labels adds to the cross-entropy: [B, classes], int32 [B] -> [B].

    Szegedy et al. 2016, section 7: a share of the label's probability is spread evenly over all
    classes, its own among them.

    Args:
      logits: float32 [B, classes].
      labels: the classes.
      share: epsilon of the paper, from 0 to 1.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    of_all = -jnp.mean(log_probabilities, axis=-1)
    return share * (of_all - cross_entropy(log_probabilities, labels))


def rubbish_loss(logits: Array, penalty: float) -> Array:
    """The term that LeNet-5's criterion adds to the cross-entropy: [B, classes] -> [B].

    LeCun et al. 1998, equation 9: y of the label + log(e^-j + sum of e^-y), where the
    penalties y are minus the logits and j is the penalty of "rubbish", which is no class.
    Without the cross-entropy this is log(1 + e^(-j - logsumexp(logits))). It pulls the
    label's penalty down even where all others are far away.

    Args:
      logits: float32 [B, classes].
      penalty: j.
    """
    return jax.nn.softplus(-penalty - jax.nn.logsumexp(logits, axis=-1))


def misses(scores: Array, labels: Array, k: int) -> Array:
    """1 where the label is not among the k highest scores, else 0.

    Ties rank by class number, lower first, so that a network whose scores are all equal is not
    taken to be right. A label whose score is not finite is a miss.

    Args:
      scores: [B, classes], any monotone function of the probabilities.
      labels: int32 [B].
      k: how many guesses count.

    Returns:
      float32 [B].
    """
    own = jnp.take_along_axis(scores, labels[:, None], axis=1)
    before = jnp.arange(scores.shape[1]) < labels[:, None]
    rank = jnp.sum((scores > own) | ((scores == own) & before), axis=1)
    hit = (rank < k) & jnp.isfinite(own[:, 0])
    return 1.0 - hit.astype(jnp.float32)


def top1_error(log_probabilities: Array, labels: Array) -> Array:
    """Whether the best guess is wrong: [B, classes], int32 [B] -> [B]."""
    return misses(log_probabilities, labels, 1)


def top5_error(log_probabilities: Array, labels: Array) -> Array:
    """Whether the five best guesses are wrong: [B, classes], int32 [B] -> [B]."""
    return misses(log_probabilities, labels, 5)


# The metrics of an example, by their names in files and on the screen. A new metric is a function
# (log-probabilities [B, classes], labels [B]) -> [B], and a line here.
METRICS: dict[str, Callable[[Array, Array], Array]] = {
    "top1_error": top1_error,
    "top5_error": top5_error,
    "loss": cross_entropy,
}
# The sums from which `averages` are computed.
SUMS = ("examples", *METRICS)


def totals(log_probabilities: Array, labels: Array) -> dict[str, Array]:
    """Sums over a batch; added up over batches and divided by `examples`, they give the means.

    Args:
      log_probabilities: float32 [B, classes].
      labels: int32 [B].

    Returns:
      A float32 scalar for each name in `SUMS`.
    """
    examples = jnp.sum(jnp.ones(labels.shape, jnp.float32))
    sums = {name: jnp.sum(of(log_probabilities, labels)) for name, of in METRICS.items()}
    return {"examples": examples, **sums}


# The errors by which checkpoints are compared and plateaus noticed, of classes and of boxes.
WATCHED = ("top1_error", "localization_error")


def watched(means: Mapping[str, float]) -> float:
    """The error of `means` that is watched; a KeyError if it has none."""
    return means[next(name for name in WATCHED if name in means or name == WATCHED[-1])]


def averages(sums: dict[str, Array]) -> dict[str, float]:
    """The means per example from sums by the names in `SUMS`; NaN over no examples.

    Returns:
      `examples`, an integer, and the mean of each metric.
    """
    fetched = {name: float(value) for name, value in jax.device_get(sums).items()}
    count = round(fetched.pop("examples"))
    means = {name: value / count if count else math.nan for name, value in fetched.items()}
    return {"examples": count, **means}


def means(scores: Scores) -> dict[str, float]:
    """Means over the examples of a split; every process of a launch calls this.

    Each example counts once. (Processes that hold different towers of a network have scores of
    the same images.) The result does not depend on the number of processes.

    Args:
      scores: this process's share.

    Returns:
      `examples`, the number of all examples, and the mean of each of `METRICS` over the examples
      with a label. Errors are 0 to 1; all are NaN if no example has a label.
    """
    values = [np.zeros((len(METRICS), 0), np.float32)]
    for begin in range(0, len(scores.index), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        of_part = _padded_metrics(scores.scores[part], scores.label[part])
        values.append(np.where(scores.label[part] >= 0, of_part, np.float32(np.nan)))
    index, per_example = gather_rows(scores.index, np.concatenate(values, axis=1).T)
    _, first = np.unique(index, return_index=True)
    count = len(first)
    whole = per_example[first].astype(np.float64)
    labelled = ~np.isnan(whole[:, 0])  # column 0 is an error, never NaN where there is a label
    found = whole[labelled].mean(axis=0) if labelled.any() else np.full(len(METRICS), math.nan)
    return {"examples": count, **dict(zip(METRICS, map(float, found), strict=True))}


# Number of examples in a call of the compiled program.
_AT_ONCE = 4096


def _padded_metrics(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Metrics of at most _AT_ONCE examples, float32 [metrics, b]; compiled once for any b."""
    missing = _AT_ONCE - len(labels)
    padded = np.pad(log_probabilities, [(0, missing), (0, 0)]), np.pad(labels, (0, missing))
    return np.asarray(_all_metrics(*jax.device_put(padded)))[:, : len(labels)]


@jax.jit
def _all_metrics(log_probabilities: Array, labels: Array) -> Array:
    return jnp.stack([of(log_probabilities, labels) for of in METRICS.values()])
