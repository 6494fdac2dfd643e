"""Losses and errors, per example."""

import math

import jax
import jax.numpy as jnp
from jax import Array


def cross_entropy(log_probabilities: Array, labels: Array) -> Array:
    """-log p of the label: [B, classes], int32 [B] -> [B]."""
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]


def rubbish_loss(logits: Array, penalty: float) -> Array:
    """What LeNet-5's criterion adds to the cross-entropy: [B, classes] -> [B].

    LeCun et al. 1998, equation 9, with logits of minus the penalties y of the classes and j
    that of "rubbish", which is no class: y of the label + log(e^-j + sum of e^-y). Less
    the cross-entropy that is log(1 + e^(-j - logsumexp(logits))). It pulls the label's
    penalty down even where all others are far away.
    """
    return jax.nn.softplus(-penalty - jax.nn.logsumexp(logits, axis=-1))


def misses(scores: Array, labels: Array, k: int) -> Array:
    """1 where the label is not among the k highest scores, else 0.

    Equal scores rank by class number, lower first, so that a network whose
    scores are all equal is not taken to be right. A score that is no number is a miss.

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


def totals(log_probabilities: Array, labels: Array, mask: Array | None = None) -> dict[str, Array]:
    """Sums over a batch, to be added up and divided by `examples`.

    Args:
      log_probabilities: float32 [B, classes].
      labels: int32 [B].
      mask: float32 [B], 0 for padding; None counts all.

    Returns:
      Scalars `examples`, `loss`, `top1_error` and `top5_error`, float32.
    """
    mask = jnp.ones(labels.shape, jnp.float32) if mask is None else mask
    # Where, not a product: padding must not turn an infinite loss into NaN.
    loss = jnp.where(mask > 0, cross_entropy(log_probabilities, labels), 0.0)
    return {
        "examples": jnp.sum(mask),
        "loss": jnp.sum(loss),
        "top1_error": jnp.sum(mask * misses(log_probabilities, labels, 1)),
        "top5_error": jnp.sum(mask * misses(log_probabilities, labels, 5)),
    }


def averages(sums: dict[str, Array]) -> dict[str, float]:
    """Means per example, and `examples` as an integer; NaN over no examples."""
    fetched = {name: float(value) for name, value in jax.device_get(sums).items()}
    count = round(fetched.pop("examples"))
    means = {name: value / count if count else math.nan for name, value in fetched.items()}
    return {"examples": count, **means}
