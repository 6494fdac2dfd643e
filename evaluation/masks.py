"""Dropout's sampled networks: their average in place of the mean network.

Krizhevsky et al. 2012, section 4.2: units that are multiplied by the probability of keeping them
are "a reasonable approximation to taking the geometric mean of the predictive distributions
produced by the exponentially-many dropout networks". Srivastava et al. 2014, section 7.5, compare
it with an average over sampled networks, as this does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from vision_models.functional import PureNetwork


@dataclasses.dataclass(frozen=True)
class Masks:
    """Masks that dropout draws for an evaluation.

    Attributes:
      count: number of sampled networks; 0 for the mean network, which evaluation usually is.
      seed: draws them.
    """

    count: int = 0
    seed: int = 0

    @property
    def label(self) -> str:
        """For the name of a protocol."""
        return f"{self.count}_masks" + f"_seed_{self.seed}" * bool(self.seed)


NONE = Masks()


def scores(network: PureNetwork, masks: Masks) -> Callable[[Any, Any, Array], Array]:
    """How images are scored: by the network, or as an average over sampled networks.

    A sampled network keeps some of the units for all images, whatever the batch and the mesh: its
    masks depend on the seed and its number alone. BatchNorm is as in evaluation.

    Args:
      network: whose dropout is sampled.
      masks: how many are drawn, and from which seed.

    Returns:
      (parameters, statistics, images [B, ...]) -> float32 [B, classes]: logits, or the logarithms
      of the average probabilities.
    """
    if not masks.count:
        return network.apply

    def average(params: Any, statistics: Any, images: Array) -> Array:
        def log_probabilities(number: Array) -> Array:
            key = jax.random.fold_in(jax.random.key(masks.seed), number)
            keys = jnp.broadcast_to(key, (len(images),))
            return jax.nn.log_softmax(network.sampled(params, statistics, images, keys))

        def add(total: Array, number: Array) -> tuple[Array, None]:
            return jnp.logaddexp(total, log_probabilities(number)), None

        first = log_probabilities(jnp.int32(0))
        total, _ = lax.scan(add, first, jnp.arange(1, masks.count))
        return total - np.float32(np.log(masks.count))

    return average
